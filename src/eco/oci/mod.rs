//! Container images: the pull side of the OCI distribution specification (v1.1) and of Docker's registry API (V2), as
//! pure functions.
//!
//! A tag is a name and belongs to its registry; everything else is named by its digest.

mod closure;
mod manifest;
mod name;
mod purl;
mod want;

pub use closure::{Closure, ClosureError, IMAGE_BYTES, Platforms, Step, is_platform, platform_here};
pub use manifest::{Descriptor, Kind, MANIFEST_BYTES, Manifest, ManifestError, Platform};
pub use name::{Image, ImageError, Reference, Repository, reference_digest};
pub use purl::{image_of, repository_of, repository_purl};
pub use want::{Accepts, Place, Resource, Want, WantError, query_of, relinked, want};

/// What is sent as `Accept` for a manifest, whoever asks: all that a client of today can read. One list, so that what
/// is stored never depends on who asked first.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
                          application/vnd.docker.distribution.manifest.list.v2+json, \
                          application/vnd.oci.image.manifest.v1+json, \
                          application/vnd.docker.distribution.manifest.v2+json, \
                          application/vnd.oci.artifact.manifest.v1+json, */*;q=0.5";

/// The same for clients that read no index: registries choose one platform's manifest for them.
pub const ACCEPT_SINGLE: &str = "application/vnd.oci.image.manifest.v1+json, \
                                 application/vnd.docker.distribution.manifest.v2+json";
