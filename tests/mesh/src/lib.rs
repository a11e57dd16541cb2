//! The whole mesh in one process: control planes, what they tell each other, and proxies, made of the pure halves of each.
//!
//! Owns what stands in for the world: a clock, one seed, links that delay and break, an address book, and certificates that
//! are only names. Everything that decides anything is the product's own code. Never opens a socket, starts a thread or
//! reads a clock, so the same seed is the same run, to the last byte. Used by the tests beside it.
//!
//! Read in this order: [`Site`] is a control plane fed from text; [`Mesh`] is several of them with their proxies;
//! [`Mesh::request`] sends a request through it and says, hop by hop, where it went.

mod exchange;
mod link;
mod mesh;
mod pods;
mod proxy;
mod site;
mod source;
mod tls;
mod trace;
mod upstream;
mod walk;

pub use link::{Link, Weather};
pub use mesh::{From, Mesh, MeshBuilder};
pub use pods::{EAST_WEST_PORT, PROXY_PORT, Pod};
pub use proxy::{Received, SimProxy, Speaks};
pub use site::{Site, SiteSpec};
pub use source::Source;
pub use tls::{Hello, Trust};
pub use trace::{End, Hop, Seen, Trace};
