//! A scripted HTTP/1.1 server on loopback: a function from requests to replies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::TestImage;
use crate::oci::media_type;

#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Send so many bytes of the body, then close.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None }
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;
/// How much of a request's body is read before the connection ends; the script sees what was read.
type Cut = dyn Fn(&Request) -> Option<usize> + Send + Sync;

/// A running server; it lives until the test process ends.
pub struct Server {
    pub host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_cutting(script, |_| None)
    }

    /// One that may hang up in the middle of a request.
    pub fn start_cutting(
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        cut: impl Fn(&Request) -> Option<usize> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (script, cut, log): (Arc<Script>, Arc<Cut>, _) =
            (Arc::new(script), Arc::new(cut), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, cut, log) = (script.clone(), cut.clone(), log.clone());
                std::thread::spawn(move || serve(stream, &*script, &*cut, &log));
            }
        });
        Self { host, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// `METHOD path` of every request so far.
    pub fn log(&self) -> Vec<String> {
        self.requests().iter().map(|r| format!("{} {}", r.method, r.target)).collect()
    }
}

fn serve(stream: TcpStream, script: &Script, cut: &Cut, log: &Mutex<Vec<Request>>) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    while let Some(mut request) = read_head(&mut input) {
        if request.header("expect").is_some() {
            let _ = out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let length = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        if let Some(cut) = cut(&request) {
            request.body = vec![0; cut.min(length)];
            if input.read_exact(&mut request.body).is_ok() {
                script(&request);
                log.lock().unwrap().push(request);
            }
            return;
        }
        request.body = vec![0; length];
        if input.read_exact(&mut request.body).is_err() {
            return;
        }
        let reply = script(&request);
        let head_only = request.method == "HEAD";
        log.lock().unwrap().push(request);
        if write(&mut out, &reply, head_only).is_none() {
            return;
        }
    }
}

fn read_head(input: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split(' ');
    let mut request =
        Request { method: words.next()?.to_owned(), target: words.next()?.to_owned(), ..Request::default() };
    if request.method.bytes().any(|b| !b.is_ascii_uppercase()) {
        return None; // a TLS handshake: a server of plain http hangs up
    }
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Some(request) };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn write(out: &mut TcpStream, reply: &Reply, head_only: bool) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| *name == "content-length") {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    out.write_all((head + "\r\n").as_bytes()).ok()?;
    if head_only {
        return Some(());
    }
    match reply.cut {
        Some(cut) => {
            let _ = out.write_all(&reply.body[..cut.min(reply.body.len())]);
            let _ = out.flush();
            let _ = out.shutdown(std::net::Shutdown::Both);
            None
        }
        None => out.write_all(&reply.body).ok(),
    }
}

/// What a good registry answers to reads of an image, under any name and tag.
pub fn registry_reply(image: &TestImage, request: &Request) -> Reply {
    let last = request.target.rsplit('/').next().unwrap_or_default();
    if request.target.contains("/manifests/") {
        if last != "latest" && last != image.manifest.digest.as_str() {
            return unknown("MANIFEST_UNKNOWN");
        }
        return Reply::new(200)
            .header("content-type", media_type::OCI_MANIFEST)
            .header("docker-content-digest", image.manifest.digest.as_str())
            .body(image.manifest.bytes.clone());
    }
    let Some(bytes) = image.blob(last) else { return unknown("BLOB_UNKNOWN") };
    let range = request.header("range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    let range = range.and_then(|(start, last)| Some((start.parse::<usize>().ok()?, last.parse::<usize>())));
    match range {
        Some((start, last)) => {
            let end = last.map_or(bytes.len(), |last| (last + 1).min(bytes.len()));
            Reply::new(206)
                .header("content-range", format!("bytes {start}-{}/{}", end - 1, bytes.len()))
                .body(&bytes[start..end])
        }
        None => Reply::new(200).body(bytes),
    }
}

pub fn unknown(code: &str) -> Reply {
    Reply::new(404).body(format!(r#"{{"errors":[{{"code":"{code}","message":"unknown"}}]}}"#))
}
