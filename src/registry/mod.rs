//! Floor 2: images in registries (OCI distribution-spec v1.1, docker registry v2).
//!
//! A [`Client`] is one repository at one registry (and, for reading, its mirrors) as an image source and sink. Below
//! it: `endpoint.rs` speaks to one host with `auth.rs` answering its challenges, `http.rs` sends single requests and
//! follows redirects, `tls.rs`, `proxy.rs` and `resolver.rs` make connections. Credentials are bound to an origin
//! (scheme, host and port) and never leave it.

mod aliases;
mod auth;
mod blob;
mod client;
mod conf;
mod connect;
mod credentials;
mod der;
mod download;
mod endpoint;
mod error;
mod fetch;
mod helper;
mod http;
mod limits;
mod listing;
mod login;
mod mirrors;
mod origin;
mod places;
mod policy;
mod process;
mod proxy;
mod ranges;
mod resolver;
mod retry;
mod roots;
mod secret;
mod session;
mod settings;
mod signature;
mod simple_signing;
mod subject;
mod tls;
mod upload;

pub use aliases::{NameError, Named, resolve_name};
pub use client::{Action, Client};
pub use credentials::{Found, Login};
pub use download::{Answered, Known, download, http_time};
pub use error::{Answer, Error};
pub use fetch::fetch;
pub use listing::{Referrers, SearchHit, Searched, artifact_type_of, catalog, search};
pub use login::{LoggedIn, LoggedOut, check, log_in, log_out, log_out_all, logged_in};
pub use policy::admit_location;
pub use secret::Secret;
pub use settings::Settings;

#[cfg(test)]
mod tests;
