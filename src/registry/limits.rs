//! Every limit of the registry client in one place.

use std::time::Duration;

/// The largest manifest or index, in bytes (as containers/image).
pub(super) const MANIFEST_BYTES: u64 = 4 << 20;
/// The largest page of a list, in bytes.
pub(super) const LIST_BYTES: u64 = 16 << 20;
/// The largest answer of a token server, in bytes.
pub(super) const TOKEN_BYTES: u64 = 1 << 20;
/// The part of an error body that is read, in bytes.
pub(super) const ERROR_BYTES: u64 = 64 << 10;
/// The largest header section of a response, in bytes.
pub(super) const HEADER_BYTES: usize = 64 << 10;
/// The largest configuration or credential file, in bytes.
pub(super) const FILE_BYTES: u64 = 4 << 20;
/// The largest answer of a credential helper, in bytes.
pub(super) const HELPER_BYTES: u64 = 1 << 20;
/// How many redirects of one request are followed.
pub(super) const REDIRECTS: usize = 5;
/// How often a request is repeated after a failure that may pass, unless `--retry` says otherwise.
pub(super) const RETRIES: u32 = 3;
/// The first pause before a repetition; it doubles from one to the next.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause of our own.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that a registry may ask for with Retry-After before the request fails instead.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Name lookup.
pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Connecting and the TLS handshake, all addresses of a host together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest silence while bytes are read or written, unless `--stall-timeout` says otherwise.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// So long is waited for at least [`PACE_BYTES`]: less counts as a broken connection.
pub(super) const PACE_WINDOW: Duration = Duration::from_secs(30);
/// 1 KiB/s.
pub(super) const PACE_BYTES: u64 = 30 << 10;
/// From so many bytes on a blob is read by several requests at once.
pub(super) const RANGE_FROM: u64 = if cfg!(test) { 1 << 20 } else { 32 << 20 };
/// The part of a blob that one such request asks for, in bytes.
pub(super) const RANGE_CHUNK: u64 = if cfg!(test) { 128 << 10 } else { 4 << 20 };
/// A first part that comes in this time needs no others beside it: 200 MB/s, about what one thread unpacks.
pub(super) const RANGE_FAST: Duration =
    if cfg!(test) { Duration::ZERO } else { Duration::from_millis(RANGE_CHUNK / 200_000) };
/// How many such requests of one blob run at once.
pub(super) const RANGE_REQUESTS: usize = 4;
/// How many parts lie in memory, those of all blobs together: 32 MiB.
pub(super) const RANGE_WINDOW: isize = 6;
/// From the end of a request to the end of its response headers.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for the request that ends an upload: registries move gigabytes before they answer.
pub(super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(900);
/// The whole of a small document: manifest, token, error.
pub(super) const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(120);
/// A credential helper.
pub(super) const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// The part of a layer sent in one request when a registry does not take it whole, in bytes.
pub(super) const CHUNK_BYTES: u64 = 16 << 20;
/// The smallest such part.
pub(super) const SMALLEST_CHUNK_BYTES: u64 = 1 << 20;
