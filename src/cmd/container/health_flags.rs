//! The flags of `run` and `create` about health checks.

use clap::{ArgAction, Args};

use crate::oci::Healthcheck;
use crate::ops::container::{Error, values};
use crate::ops::when::go_duration;

/// `--health-*` and `--no-healthcheck`
#[derive(Debug, Args)]
pub(super) struct HealthFlags {
    /// The command, for a shell, that says whether the container is well; none checks nothing
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// The time between two checks (30s)
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_interval: Option<String>,
    /// How many failures in a row mean unhealthy (3)
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    health_retries: Option<i64>,
    /// How long failures right after the start do not count
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_start_period: Option<String>,
    /// The time between two checks during that (5s)
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_start_interval: Option<String>,
    /// How long one check may take (30s)
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_timeout: Option<String>,
    /// Check nothing, whatever the image says
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    no_healthcheck: bool,
}

fn duration(flag: &'static str, text: Option<&str>) -> Result<i64, Error> {
    let Some(text) = text else { return Ok(0) };
    let bad = |why: &str| values::bad(flag, text, why);
    let found = if text == "0" { Some(jiff::SignedDuration::ZERO) } else { go_duration(text) };
    let found = found.ok_or_else(|| bad("it is a number with a unit: ms, s, m, h"))?;
    match i64::try_from(found.as_nanos()) {
        Ok(0) => Ok(0),
        Ok(1_000_000..) => Ok(i64::try_from(found.as_nanos()).unwrap_or(i64::MAX)),
        _ => Err(bad("it cannot be less than 1ms")),
    }
}

impl HealthFlags {
    /// What they ask for, as the image's config says it; zero and empty inherit.
    pub(super) fn check(&self) -> Result<Option<Healthcheck>, Error> {
        let test = match self.health_cmd.as_deref() {
            None | Some("") => Vec::new(),
            Some("none") => vec!["NONE".to_owned()],
            Some(text) => match serde_json::from_str::<Vec<String>>(text) {
                Ok(words) => [vec!["CMD".to_owned()], words].concat(),
                Err(_) => vec!["CMD-SHELL".to_owned(), text.to_owned()],
            },
        };
        let retries = self.health_retries.unwrap_or(0);
        if retries < 0 {
            return Err(values::bad("--health-retries", &retries.to_string(), "it cannot be negative"));
        }
        let check = Healthcheck {
            test,
            interval: duration("--health-interval", self.health_interval.as_deref())?,
            timeout: duration("--health-timeout", self.health_timeout.as_deref())?,
            start_period: duration("--health-start-period", self.health_start_period.as_deref())?,
            start_interval: duration("--health-start-interval", self.health_start_interval.as_deref())?,
            retries,
        };
        match (self.no_healthcheck, check == Healthcheck::default()) {
            (true, true) => Ok(Some(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() })),
            (true, false) => Err(Error::Conflict("--no-healthcheck", "--health-*")),
            (false, true) => Ok(None),
            (false, false) => Ok(Some(check)),
        }
    }
}
