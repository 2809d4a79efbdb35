//! Files over HTTP: what a build or an import fetches.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a path answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A file with these headers; an `ETag` is answered with 304 when the request has it.
    File(Vec<u8>, Vec<(&'static str, String)>),
    /// Somewhere else.
    Redirect(String),
}

/// A server of files on a port of its own.
#[derive(Debug, Clone)]
pub struct Files {
    host: String,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    /// Requests: the first line and the headers, in lower case.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Files {
    /// Serve nothing yet.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let files = Self { host, answers: Arc::default(), requests: Arc::default() };
        let server = files.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        files
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.host)
    }

    /// Serve a file.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) -> String {
        self.answer(path, Answer::File(content.as_ref().to_vec(), Vec::new()))
    }

    /// Answer in a certain way.
    pub fn answer(&self, path: &str, answer: Answer) -> String {
        self.answers.lock().unwrap().insert(format!("/{path}"), answer);
        self.url(path)
    }

    /// Serve every file of a directory.
    pub fn put_dir(&self, path: &str, dir: &std::path::Path) -> String {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{path}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                self.put_dir(&path, &entry.path());
            } else {
                self.put(&path, std::fs::read(entry.path()).unwrap());
            }
        }
        self.url(path)
    }

    /// Requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        loop {
            let mut request = String::new();
            while let Ok(n) = reader.read_line(&mut request) {
                if n == 0 {
                    return;
                }
                if request.ends_with("\r\n\r\n") {
                    break;
                }
            }
            let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap().to_owned();
            let lower = request.to_ascii_lowercase();
            self.requests.lock().unwrap().push(lower.clone());
            let answer = self.answers.lock().unwrap().get(&path).cloned();
            let (status, headers, body) = match answer {
                None => ("404 Not Found", Vec::new(), b"not found".to_vec()),
                Some(Answer::Redirect(to)) => ("302 Found", vec![("Location", to)], Vec::new()),
                Some(Answer::File(body, headers)) => {
                    let tag = headers.iter().find(|(name, _)| *name == "ETag");
                    let known = tag.is_some_and(|(_, tag)| {
                        lower.contains(&format!("if-none-match: {}", tag.to_ascii_lowercase()))
                    });
                    if known { ("304 Not Modified", headers, Vec::new()) } else { ("200 OK", headers, body) }
                }
            };
            let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            if stream
                .write_all(format!("{head}\r\n").as_bytes())
                .and_then(|()| stream.write_all(&body))
                .is_err()
            {
                return;
            }
        }
    }
}
