//! PyPI: the simple repository API (PEP 503, 592, 629, 658, 691, 700, 708, 714, 740, 792) as pure functions.
//!
//! Upstream's page is read once, whatever its form, into a [`Project`]; JSON and HTML are both rendered from that,
//! so what a client gets never depends on who asked first. Rendered links are relative to the page, hence they work
//! under any mount point and any host name.

mod archive;
mod complete;
mod html;
mod json;
mod name;
mod negotiate;
mod platform;
mod project;
mod purl;
mod render;
mod root;
mod stored;
mod want;
mod wheel;

pub use name::{NameError, NamePattern, PatternError, ProjectName};
pub use negotiate::{Form, negotiate};
pub use platform::is_for;
pub use project::{CoreMetadata, File, IndexError, Project, Yanked, parse};
pub use purl::{Purl, PurlError, is_of, project_of, purl_of, version_of};
pub use render::render;
pub use root::{Names, parse_root, render_root};
pub use want::{FileWant, Part, Want, content_type, file_link, want};
pub use wheel::{WheelError, wheel_metadata};
