//! The main job with a real distribution: install packages, commit, build as people do. It needs a package mirror.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::{Env, debian, eventually, need, skip};

const NO_DEBIAN: &str = "no Debian image can be made: is there a mirror?";

#[test]
fn a_package_installed_in_a_container_survives_start_and_commit() {
    need!("docker-registry", "skopeo", "mmdebstrap");
    let Some(image) = debian() else { return skip(NO_DEBIAN) };
    let env = Env::new();
    let install = "if [ -x /usr/bin/file ]; then file --version; \
                   else apt-get update -qq && apt-get install -y -qq file; fi";
    env.run(["run", "-i", "--name", "box", "--network", "host", &image, "sh", "-c", install]).success();
    env.run(["start", "-ai", "box"]).success().stdout_has("magic file from");
    let committed =
        env.run(["commit", "-m", "with file", "-a", "A Tester", "box", "box:with-file"]).success();
    assert!(committed.text().starts_with("sha256:"), "{committed}");
    env.run(["run", "--rm", "--network", "none", "box:with-file", "file", "--version"]).success();
    env.run(["history", "--format", "{{.Comment}}", "box:with-file"]).success().stdout_has("with file");
    env.run(["inspect", "-f", "{{.Author}}", "box:with-file"]).success().prints("A Tester");
    env.run(["rm", "box"]).success();
}

#[test]
fn a_web_server_image_serves() {
    need!("docker-registry", "skopeo", "mmdebstrap");
    let Some(image) = debian() else { return skip(NO_DEBIAN) };
    let env = Env::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    env.write(
        "Dockerfile",
        format!(
            "FROM {image}\nRUN apt-get update && apt-get install -y --no-install-recommends nginx-light \\\n    \
             && rm -rf /var/lib/apt/lists/*\nCOPY nginx.conf /etc/nginx/nginx.conf\nCOPY index.html /srv/\n\
             EXPOSE 80\nCMD [\"nginx\", \"-g\", \"daemon off;\"]\n"
        ),
    );
    env.write(
        "nginx.conf",
        format!("events {{}}\nhttp {{ access_log off; server {{ listen 127.0.0.1:{port}; root /srv; }} }}\n"),
    );
    env.write("index.html", "first page\n");
    let build = || env.run(["build", "--progress", "plain", "-t", "web", "."]).success();
    build();
    assert_eq!(build().cached_steps(), 3);
    env.run(["inspect", "-f", "{{json .Config.ExposedPorts}}", "web"]).success().prints("{\"80/tcp\":{}}");
    serve_and_fetch(&env, port, "first page");
    env.write("index.html", "second page\n");
    assert_eq!(build().cached_steps(), 2);
    serve_and_fetch(&env, port, "second page");
}

fn serve_and_fetch(env: &Env, port: u16, page: &str) {
    env.run(["run", "-d", "--name", "web", "--network", "host", "web"]).success();
    let answer = eventually("an answer of the server", Duration::from_secs(30), || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    });
    assert!(answer.contains("200 OK") && answer.contains(page), "{answer}");
    env.run(["stop", "web"]).success();
    env.run(["rm", "web"]).success();
}

#[test]
fn a_compiled_program_alone_in_an_image() {
    need!("docker-registry", "skopeo", "mmdebstrap");
    let Some(image) = debian() else { return skip(NO_DEBIAN) };
    let env = Env::new();
    let toolchain = format!(
        "FROM {image} AS build\nRUN apt-get update && apt-get install -y --no-install-recommends g++ libc6-dev\n\
         WORKDIR /src\nCOPY hello.cpp .\nRUN g++ -O1 -static -o hello hello.cpp\nRUN ./hello\n"
    );
    env.write("Dockerfile", format!("{toolchain}CMD [\"./hello\"]\n"));
    env.write(
        "Dockerfile.small",
        format!("{toolchain}FROM scratch\nCOPY --from=build /src/hello /hello\nCMD [\"/hello\"]\n"),
    );
    let program = |text: &str| format!("#include <iostream>\nint main() {{ std::cout << \"{text}\\n\"; }}\n");
    env.write("hello.cpp", program("hello"));
    let build = |file: &str, name: &str| {
        env.run(["build", "--progress", "plain", "-f", file, "-t", name, "."]).success()
    };
    build("Dockerfile", "hello");
    assert_eq!(build("Dockerfile", "hello").cached_steps(), 5);
    env.run(["run", "--rm", "--network", "none", "hello"]).success().prints("hello");
    build("Dockerfile.small", "hello:small");
    assert_eq!(build("Dockerfile.small", "hello:small").cached_steps(), 6);
    env.run(["run", "--rm", "--network", "none", "hello:small"]).success().prints("hello");
    env.run(["inspect", "-f", "{{len .RootFS.Layers}}", "hello:small"]).success().prints("1");
    env.write("hello.cpp", program("changed"));
    assert_eq!(build("Dockerfile.small", "hello:small").cached_steps(), 2);
    env.run(["run", "--rm", "--network", "none", "hello:small"]).success().prints("changed");
}
