//! A programmable fault between a client and a real registry.
//!
//! Every request is shown to a rule, which says what goes wrong with it. The proxy speaks plain HTTP/1.1, keeps the
//! client's `Host` (so a registry behind it names the proxy in its answers) and keeps a record of all it saw.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its number at this proxy, from 0.
    pub nth: usize,
    /// Bytes of request body that came.
    pub sent: u64,
    /// Bytes of response body that were passed on.
    pub got: u64,
}

impl Seen {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a blob is read.
    pub fn is_blob(&self) -> bool {
        self.method == "GET" && self.target.contains("/blobs/sha256:")
    }

    /// Whether a manifest is asked for.
    pub fn is_manifest(&self) -> bool {
        self.target.contains("/manifests/")
    }
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// The proxy answers itself.
    Reply {
        /// Status.
        status: u16,
        /// Headers; without a Content-Length that of the body is told.
        headers: Vec<(String, String)>,
        /// Body.
        body: Vec<u8>,
    },
    /// The connection ends after so many bytes of the response body.
    Cut(u64),
    /// One byte of the response body is another.
    Flip(u64),
    /// The response body is longer than it is, for ever.
    Endless,
    /// The Content-Length is off by so much.
    Length(i64),
    /// The response body comes in pieces of so many bytes with a pause before each.
    Slow(usize, Duration),
    /// After so many bytes of response body nothing more comes, and the connection stays open.
    Hang(u64),
    /// The registry does not see the Range header.
    NoRange,
    /// A header of the response is another.
    Header(&'static str, String),
    /// The request body is cut after so many bytes, on both sides.
    CutUpload(u64),
    /// Raw bytes go to the client, then the connection ends.
    Raw(Vec<u8>),
}

impl Fault {
    /// An answer of the proxy's own.
    pub fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::Reply { status, headers, body: body.into() }
    }
}

type Rule = dyn Fn(&Seen) -> Fault + Send + Sync;

/// A running proxy; its thread lives until the test process ends.
#[derive(Debug)]
pub struct Proxy {
    host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Requests that have begun.
    begun: Arc<AtomicUsize>,
}

impl Proxy {
    /// Start one in front of `upstream` (`127.0.0.1:PORT`; unused when the rule answers everything).
    pub fn start(upstream: &str, rule: impl Fn(&Seen) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (rule, log, upstream): (Arc<Rule>, _, _) = (Arc::new(rule), seen.clone(), upstream.to_owned());
        let numbers = Arc::new(AtomicUsize::new(0));
        let begun = numbers.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (rule, log, upstream, numbers) =
                    (rule.clone(), log.clone(), upstream.clone(), numbers.clone());
                // A client that goes away in the middle is no failure of the test.
                std::thread::spawn(move || serve(&client, &upstream, &*rule, &log, &numbers));
            }
        });
        Self { host, seen, begun }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.host.clone()
    }

    /// A reference to a repository behind it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Every request so far, in the order of their ends; one that stays under way is not among them.
    pub fn seen(&self) -> Vec<Seen> {
        // The client may have its answer a moment before the request is written down.
        for _ in 0..50 {
            let ended = self.seen.lock().unwrap_or_else(PoisonError::into_inner).len();
            if ended >= self.begun.load(Ordering::SeqCst) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `METHOD target` of every request so far.
    pub fn log(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }

    /// How many requests so far fit.
    pub fn count(&self, fits: impl Fn(&Seen) -> bool) -> usize {
        self.seen().iter().filter(|seen| fits(seen)).count()
    }
}

fn serve(
    client: &TcpStream,
    upstream: &str,
    rule: &Rule,
    log: &Mutex<Vec<Seen>>,
    numbers: &AtomicUsize,
) -> Option<()> {
    let _ = client.set_nodelay(true);
    let mut input = BufReader::new(client.try_clone().ok()?);
    loop {
        let mut seen = read_head(&mut input)?;
        seen.nth = numbers.fetch_add(1, Ordering::SeqCst);
        let fault = rule(&seen);
        let goes_on = exchange(client, &mut input, upstream, &mut seen, &fault);
        log.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        if goes_on.is_none() {
            let _ = client.shutdown(Shutdown::Both);
            return None;
        }
    }
}

/// One request. `None` when the connection has to end.
fn exchange(
    mut client: &TcpStream,
    input: &mut BufReader<TcpStream>,
    upstream: &str,
    seen: &mut Seen,
    fault: &Fault,
) -> Option<()> {
    let length: u64 = seen.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    if seen.header("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    match fault {
        Fault::Reply { status, headers, body } => {
            seen.sent = std::io::copy(&mut input.take(length), &mut std::io::sink()).ok()?;
            let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
                head += &format!("Content-Length: {}\r\n", body.len());
            }
            headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
            client.write_all((head + "\r\n").as_bytes()).ok()?;
            if seen.method != "HEAD" {
                client.write_all(body).ok()?;
                seen.got = body.len() as u64;
            }
            return Some(());
        }
        Fault::Raw(bytes) => {
            let _ = client.write_all(bytes);
            return None;
        }
        _ => {}
    }
    let mut server = TcpStream::connect(upstream).ok()?;
    let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", seen.method, seen.target);
    for (name, value) in &seen.headers {
        let drop = ["connection", "expect"].contains(&name.as_str())
            || (name == "range" && matches!(fault, Fault::NoRange));
        if !drop {
            head += &format!("{name}: {value}\r\n");
        }
    }
    server.write_all((head + "\r\n").as_bytes()).ok()?;
    if let Fault::CutUpload(limit) = fault
        && length > *limit
    {
        seen.sent = std::io::copy(&mut input.take(*limit), &mut server).ok()?;
        let _ = server.flush();
        return None;
    }
    seen.sent = std::io::copy(&mut input.take(length), &mut server).ok()?;
    answer(client, BufReader::new(server), seen, fault)
}

/// Pass an answer on, with the fault in it.
fn answer(
    mut client: &TcpStream,
    mut server: BufReader<TcpStream>,
    seen: &mut Seen,
    fault: &Fault,
) -> Option<()> {
    let mut status = String::new();
    server.read_line(&mut status).ok().filter(|n| *n > 0)?;
    let mut headers = read_headers(&mut server)?;
    headers.retain(|(name, _)| name != "connection");
    let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let length: Option<u64> = find("content-length").and_then(|text| text.parse().ok());
    let chunked = find("transfer-encoding").is_some();
    match fault {
        Fault::Length(by) => {
            set(&mut headers, "content-length", length.unwrap_or(0).saturating_add_signed(*by).to_string())
        }
        Fault::Header(name, value) => set(&mut headers, name, value.clone()),
        Fault::Endless => {
            headers.retain(|(name, _)| name != "content-length");
            headers.push(("transfer-encoding".into(), "chunked".into()));
        }
        _ => {}
    }
    let mut head = status;
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    client.write_all((head + "\r\n").as_bytes()).ok()?;
    if seen.method == "HEAD" {
        return Some(());
    }
    if chunked {
        // As it comes; the registries that are tested send documents and blobs with their length.
        seen.got = std::io::copy(&mut server, &mut client).ok()?;
        return None;
    }
    let length = length.unwrap_or(0);
    body(client, &mut server.take(length), length, seen, fault)
}

fn body(
    mut client: &TcpStream,
    server: &mut dyn Read,
    length: u64,
    seen: &mut Seen,
    fault: &Fault,
) -> Option<()> {
    let piece = if let Fault::Slow(size, _) = fault { *size } else { 64 << 10 };
    let mut buffer = vec![0; piece];
    while seen.got < length {
        let n = server.read(&mut buffer).ok().filter(|n| *n > 0)?;
        let mut part = &mut buffer[..n];
        match fault {
            Fault::Cut(limit) | Fault::Hang(limit) if seen.got + n as u64 > *limit => {
                part = &mut part[..usize::try_from(*limit - seen.got).ok()?];
            }
            Fault::Flip(at) if (seen.got..seen.got + n as u64).contains(at) => {
                part[usize::try_from(*at - seen.got).ok()?] ^= 1;
            }
            Fault::Slow(_, pause) => std::thread::sleep(*pause),
            _ => {}
        }
        if matches!(fault, Fault::Endless) {
            client.write_all(format!("{:x}\r\n", part.len()).as_bytes()).ok()?;
        }
        client.write_all(part).ok()?;
        if matches!(fault, Fault::Endless) {
            client.write_all(b"\r\n").ok()?;
        }
        seen.got += part.len() as u64;
        match fault {
            Fault::Cut(limit) if seen.got >= *limit => return None,
            Fault::Hang(limit) if seen.got >= *limit => {
                // Until the client has enough of it.
                let _ = client.read(&mut [0]);
                return None;
            }
            _ => {}
        }
    }
    match fault {
        Fault::Endless => loop {
            client.write_all(b"10\r\nand more and more\r\n").ok()?;
        },
        // What was promised too much never comes, what was promised too little confuses the next answer.
        Fault::Length(_) => None,
        _ => Some(()),
    }
}

fn set(headers: &mut Vec<(String, String)>, name: &str, value: String) {
    headers.retain(|(key, _)| key != name);
    headers.push((name.to_owned(), value));
}

fn read_head(input: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split(' ');
    let method = words.next()?.to_owned();
    if method.is_empty() || method.bytes().any(|b| !b.is_ascii_uppercase()) {
        return None; // a TLS handshake: a server of plain http hangs up
    }
    let target = words.next()?.to_owned();
    Some(Seen { method, target, headers: read_headers(input)?, ..Seen::default() })
}

fn read_headers(input: &mut impl BufRead) -> Option<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Some(headers) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}
