//! Whom this machine trusts: its certificate authorities, `SSL_CERT_FILE` and `SSL_CERT_DIR`.
//!
//! As with programs in Go, `SSL_CERT_FILE` stands for the system's bundle and `SSL_CERT_DIR` for its directories, so
//! setting one of them adds to what the other half of the system holds; setting both replaces everything.

use std::path::Path;
use std::sync::OnceLock;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Error;
use super::error::sanitise;
use super::settings::Settings;

/// Where systems keep all their authorities in one file.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities, and where they come from in words.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    pub store: RootCertStore,
    pub source: String,
}

/// The authorities that are trusted for every host.
///
/// # Errors
/// [`Error::Setting`] when a variable names something that holds no certificate: going on without would end in an
/// error that speaks of something else.
pub(super) fn of_machine(settings: &Settings) -> Result<Roots, Error> {
    /// Reading them takes milliseconds.
    static KNOWN: OnceLock<Roots> = OnceLock::new();
    match (settings.var("SSL_CERT_FILE"), settings.var("SSL_CERT_DIR")) {
        (None, None) => Ok(KNOWN.get_or_init(of_system).clone()),
        (file, directories) => named(file, directories),
    }
}

fn of_system() -> Roots {
    let mut store = RootCertStore::empty();
    let bundle = BUNDLES.iter().find(|path| add_file(&mut store, Path::new(path)) > 0);
    if let Some(path) = bundle {
        return Roots { store, source: format!("those of `{path}`") };
    }
    if add_directory(&mut store, Path::new("/etc/ssl/certs")) > 0 {
        return Roots { store, source: "those of `/etc/ssl/certs`".into() };
    }
    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Roots { store, source: "those built in, as this machine has none".into() }
}

fn named(file: Option<&str>, directories: Option<&str>) -> Result<Roots, Error> {
    let empty = |name, value: &str, what| Error::Setting { name, value: sanitise(value, 300), what };
    let mut store = RootCertStore::empty();
    let mut sources = Vec::new();
    match file {
        Some(path) => {
            if add_file(&mut store, Path::new(path)) == 0 {
                return Err(empty(
                    "SSL_CERT_FILE",
                    path,
                    "it holds no certificate in PEM form, or cannot be read",
                ));
            }
            sources.push(format!("`{path}`"));
        }
        None => sources.extend(
            BUNDLES
                .iter()
                .find(|path| add_file(&mut store, Path::new(path)) > 0)
                .map(|path| format!("`{path}`")),
        ),
    }
    match directories {
        Some(list) => {
            let mut found = 0;
            for path in list.split(':').filter(|path| !path.is_empty()) {
                found += add_directory(&mut store, Path::new(path));
            }
            if found == 0 {
                return Err(empty("SSL_CERT_DIR", list, "no certificate lies there"));
            }
            sources.push(format!("`{list}`"));
        }
        None => {
            let system = of_system();
            store.roots.extend(system.store.roots);
            sources.push("this machine's own".into());
        }
    }
    Ok(Roots { store, source: format!("those of {}", sources.join(" and ")) })
}

/// Add the authorities of a file; how many there were comes back.
fn add_file(store: &mut RootCertStore, path: &Path) -> usize {
    let Ok(list) = CertificateDer::pem_file_iter(path) else { return 0 };
    store.add_parsable_certificates(list.filter_map(Result::ok)).0
}

fn add_directory(store: &mut RootCertStore, path: &Path) -> usize {
    let found = rustls_native_certs::load_certs_from_paths(None, Some(path));
    let others = if found.certs.is_empty() { files_of(path) } else { found.certs };
    store.add_parsable_certificates(others).0
}

/// A directory of files that were not named by OpenSSL's `c_rehash`.
fn files_of(path: &Path) -> Vec<CertificateDer<'static>> {
    let Ok(list) = std::fs::read_dir(path) else { return Vec::new() };
    let files = list.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file());
    files
        .filter_map(|path| CertificateDer::pem_file_iter(path).ok())
        .flatten()
        .filter_map(Result::ok)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_names_no_certificate_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        for (name, value) in [
            ("SSL_CERT_FILE", dir.path().join("missing")),
            ("SSL_CERT_FILE", empty),
            ("SSL_CERT_DIR", dir.path().join("missing")),
        ] {
            let mut settings = Settings::default();
            settings.env.insert(name.into(), value.display().to_string());
            let error = of_machine(&settings).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(of_machine(&Settings::default()).unwrap().store.len() > 10);
    }
}
