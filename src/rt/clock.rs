//! Wall-clock time that tests can hold in their hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch. Wall-clock, because it is stored and survives restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Time passed since `earlier`; zero when the clock went back.
    pub fn since(self, earlier: UnixMillis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// As the standard library's time.
    pub fn system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

/// Tells the time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// One that a test moves; milliseconds since the epoch.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// Now.
    pub fn now(&self) -> UnixMillis {
        match self {
            Self::System => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMillis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
            }
            Self::Manual(millis) => UnixMillis(millis.load(Ordering::Relaxed)),
        }
    }
}
