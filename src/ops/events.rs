//! `events`: what happened to containers, images and volumes, and what happens.

use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;

use super::container::Error;
use super::when;
pub use crate::storage::Event;
use crate::storage::Store;

/// How often the file is looked at for more.
const LOOK: Duration = Duration::from_millis(100);

/// What to show.
#[derive(Debug, Default)]
pub struct Request {
    /// Nothing before this time; without it only what happens from now on.
    pub since: Option<Timestamp>,
    /// Nothing after this time, at which the verb ends.
    pub until: Option<Timestamp>,
    /// End when all that happened so far was shown.
    pub no_stream: bool,
    /// Filters.
    pub filters: Filters,
}

/// The values of one filter key are alternatives; different keys must all fit, and so must all labels.
#[derive(Debug, Default)]
pub struct Filters(Vec<(String, String)>);

impl Filters {
    /// Take one `--filter`.
    ///
    /// # Errors
    /// [`Error::Filter`]
    pub fn add(&mut self, text: &str) -> Result<(), Error> {
        const KEYS: [&str; 7] = ["container", "event", "image", "label", "name", "type", "volume"];
        let refuse = |why: &str| Err(Error::Filter(text.into(), why.into()));
        let Some((key, value)) = text.split_once('=') else { return refuse("expected KEY=VALUE") };
        if !KEYS.contains(&key) {
            return refuse(&format!("there are {}", KEYS.join(", ")));
        }
        self.0.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    fn take(&self, event: &Event) -> bool {
        let fits = |(key, value): &(String, String)| fits(event, key, value);
        let keys = self.0.iter().map(|(key, _)| key);
        keys.into_iter().all(|key| {
            let mut same = self.0.iter().filter(|(have, _)| have == key);
            if key == "label" { same.all(fits) } else { same.any(fits) }
        })
    }
}

fn fits(event: &Event, key: &str, value: &str) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    let names = |kind: &str| {
        event.kind == kind
            && (attribute("name") == Some(value) || (value.len() >= 4 && event.id.starts_with(value)))
    };
    match key {
        "container" | "volume" => names(key) || (event.kind == key && event.id == value),
        "image" => names("image") || event.id == value || attribute("image") == Some(value),
        // `exec_start` stands for `exec_start: sh`.
        "event" => event.action == value || event.action.split(": ").next() == Some(value),
        "type" => event.kind == value,
        "name" => attribute("name") == Some(value),
        _ => match value.split_once('=') {
            Some((name, value)) => attribute(name) == Some(value),
            None => attribute(value).is_some(),
        },
    }
}

/// Read a time of `--since` or `--until`.
///
/// # Errors
/// [`Error::BadValue`]
pub fn time(flag: &str, text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    when::parse(text, now).ok_or_else(|| Error::BadValue {
        flag: flag.into(),
        value: text.into(),
        why: "it is no time".into(),
    })
}

/// Show events until the end that was asked for, or `show` has had enough.
pub fn events(store: &Store, request: &Request, show: &mut dyn FnMut(&Event) -> ControlFlow<()>) {
    let nanoseconds = |time: &Timestamp| u64::try_from(time.as_nanosecond()).unwrap_or(0);
    let (since, until) = (request.since.as_ref().map(nanoseconds), request.until.as_ref().map(nanoseconds));
    let mut events = store.events();
    if since.is_none() && until.is_none() && !request.no_stream {
        events.skip_old();
    }
    loop {
        let asked = Timestamp::now();
        while let Some(event) = events.next_event() {
            if until.is_some_and(|until| event.time > until) {
                return;
            }
            if since.is_none_or(|since| event.time >= since)
                && request.filters.take(&event)
                && show(&event).is_break()
            {
                return;
            }
        }
        if request.no_stream || request.until.is_some_and(|until| asked >= until) {
            return;
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_take_what_fits() {
        let event = Event {
            time: 1,
            kind: "container".into(),
            action: "exec_start: sh -c x".into(),
            id: "0123456789abcdef".into(),
            attributes: [("name", "web"), ("image", "nginx"), ("a", "b")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        for (filters, expected) in [
            (&["container=web"][..], true),
            (&["container=0123456"], true),
            (&["container=db", "container=web"], true),
            (&["container=db"], false),
            (&["type=container", "event=exec_start"], true),
            (&["type=image"], false),
            (&["image=nginx", "label=a", "label=a=b"], true),
            (&["label=a", "label=c"], false),
            (&["event=start"], false),
            (&["volume=web"], false),
        ] {
            let mut all = Filters::default();
            filters.iter().for_each(|filter| all.add(filter).unwrap());
            assert_eq!(all.take(&event), expected, "{filters:?}");
        }
        assert!(Filters::default().add("odd=1").is_err() && Filters::default().add("type").is_err());
    }
}
