//! The registry options of verbs with two sides, as skopeo names them: `--src-creds`, `--dest-creds` and so on. What is
//! said without a side holds for both.

use std::path::PathBuf;

use clap::Args;

use super::CmdError;
use super::registry::{RemoteArgs, RetryArgs};
use crate::ops::remote::RemoteOptions;

macro_rules! side {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $side:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Args)]
        #[command(next_help_heading = $side)]
        struct $name {
            /// User name and password
            #[arg(id = concat!($prefix, "creds"), long = concat!($prefix, "creds"), value_name = "USER[:PASSWORD]")]
            creds: Option<String>,
            /// User name
            #[arg(
                id = concat!($prefix, "username"), long = concat!($prefix, "username"), value_name = "NAME",
                conflicts_with = concat!($prefix, "creds")
            )]
            username: Option<String>,
            /// Password; others can read it in the list of processes
            #[arg(
                id = concat!($prefix, "password"), long = concat!($prefix, "password"), value_name = "PASSWORD",
                requires = concat!($prefix, "username")
            )]
            password: Option<String>,
            /// A bearer token, sent as it is
            #[arg(
                id = concat!($prefix, "registry-token"), long = concat!($prefix, "registry-token"),
                value_name = "TOKEN", conflicts_with_all = [concat!($prefix, "creds"), concat!($prefix, "username")]
            )]
            registry_token: Option<String>,
            /// Without a login, even if one is kept
            #[arg(
                id = concat!($prefix, "no-creds"), long = concat!($prefix, "no-creds"),
                conflicts_with_all = [concat!($prefix, "creds"), concat!($prefix, "username"), concat!($prefix, "registry-token")]
            )]
            no_creds: bool,
            /// File with logins, instead of those that are searched
            #[arg(id = concat!($prefix, "authfile"), long = concat!($prefix, "authfile"), value_name = "FILE")]
            authfile: Option<PathBuf>,
            /// Demand https with a valid certificate; `false` accepts any, and plain http
            #[arg(
                id = concat!($prefix, "tls-verify"), long = concat!($prefix, "tls-verify"), value_name = "BOOL",
                num_args = 0..=1, require_equals = true, default_missing_value = "true"
            )]
            tls_verify: Option<bool>,
            /// Directory with the registry's authority (*.crt) and our certificate (*.cert, *.key)
            #[arg(id = concat!($prefix, "cert-dir"), long = concat!($prefix, "cert-dir"), value_name = "DIR")]
            cert_dir: Option<PathBuf>,
        }

        impl $name {
            /// These options over those of both sides.
            fn over(&self, both: &RemoteOptions) -> Result<RemoteOptions, CmdError> {
                let typed = super::registry::creds(self.creds.as_deref(), self.username.as_deref(), self.password.as_deref())?;
                let own_login = typed.is_some() || self.registry_token.is_some() || self.no_creds;
                let mut options = both.clone();
                if own_login {
                    options.creds = typed;
                    options.registry_token.clone_from(&self.registry_token);
                    options.anonymous = self.no_creds;
                }
                if self.authfile.is_some() {
                    options.authfile.clone_from(&self.authfile);
                }
                if self.cert_dir.is_some() {
                    options.cert_dir.clone_from(&self.cert_dir);
                }
                options.tls_verify = self.tls_verify.or(options.tls_verify);
                Ok(options)
            }
        }
    };
}

side! {
    /// `--src-…`
    SourceArgs, "src-", "Source options"
}
side! {
    /// The same without a prefix.
    PlainArgs, "", "Registry options"
}
side! {
    /// `--dest-…`
    DestinationArgs, "dest-", "Destination options"
}

/// Registry options of both sides and of each.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SidesArgs {
    #[command(flatten)]
    both: RemoteArgs,
    #[command(flatten)]
    retry: RetryArgs,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    destination: DestinationArgs,
}

impl SidesArgs {
    /// The options of the source and of the destination.
    pub(super) fn options(&self) -> Result<(RemoteOptions, RemoteOptions), CmdError> {
        let both = self.both.options(&self.retry)?;
        Ok((self.source.over(&both)?, self.destination.over(&both)?))
    }
}

/// Registry options of verbs that look at one registry.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RegistryArgs {
    #[command(flatten)]
    retry: RetryArgs,
    #[command(flatten)]
    plain: PlainArgs,
}

impl RegistryArgs {
    /// What they say.
    pub(super) fn options(&self) -> Result<RemoteOptions, CmdError> {
        self.plain.over(&RemoteArgs::default().options(&self.retry)?)
    }
}
