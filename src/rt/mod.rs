//! The runtime: executor threads, owned tasks, the gate to blocking work, clocks.
//!
//! Knows nothing of packages. smol's global executor is not used: it swallows panics and has no owner.

mod clock;
mod gate;
mod lines;
mod tasks;
mod timer;

pub use clock::{Clock, UnixMillis};
pub use gate::Gate;
pub use lines::Lines;
pub use tasks::{Executor, Spawner, Tasks, panics};
pub use timer::{Deadline, Ticker};
