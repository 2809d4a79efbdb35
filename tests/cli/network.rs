//! Networks of containers: `--network`, `-p`, `port`, names and resolvers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Env, eventually, need, program, with_busybox};

/// An environment with the small image in it; nothing where this user can have no private network.
pub fn with_network(helper: &str) -> Option<(Env, String)> {
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let lacks = match tun {
        Err(error) => Some(format!("/dev/net/tun: {error}")),
        Ok(_) if program(helper).is_none() => Some(format!("{helper} is not installed")),
        Ok(_) => None,
    };
    if let Some(why) = lacks {
        // Not all machines that test can have it, so this is no failure in CI either.
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {why}");
        return None;
    }
    Some(with_busybox())
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What a web server says to a request for `/name`.
fn get(address: SocketAddr, name: &str) -> Option<String> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    write!(stream, "GET /{name} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.").then_some(answer)
}

fn answers(address: SocketAddr) -> String {
    eventually("an answer", Duration::from_secs(10), || get(address, "one"))
}

fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_err()
}

/// The port behind `0.0.0.0:PORT`, as `port` prints it.
fn port_of(env: &Env, container: &str, port: &str) -> u16 {
    let said = env.run(["port", container, port]).success();
    said.text().trim().rsplit_once(':').unwrap().1.parse().unwrap()
}

/// Processes whose command line has the word.
fn processes(word: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let has = |path: &PathBuf| {
        std::fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    };
    all.filter(has).collect()
}

/// A free port of the loopback address.
fn free_port() -> u16 {
    TcpListener::bind(local(0)).unwrap().local_addr().unwrap().port()
}

const SERVER: [&str; 5] = ["httpd", "-f", "-h", "/data", "-p"];

#[test]
fn a_published_port_leads_into_the_container_and_nowhere_else() {
    need!("docker-registry", "skopeo", "busybox");
    let Some((env, image)) = with_network("pasta") else { return };
    let args = ["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "--expose", "443", &image];
    let id = env.run(args.iter().chain(&SERVER).chain(&["80"])).success();
    let id = id.text().trim().to_owned();
    let port = port_of(&env, "web", "80");
    assert!(answers(local(port)).ends_with("one\n"));
    assert!(is_closed((Ipv4Addr::new(127, 0, 0, 2), port).into()), "only the address that was named");
    env.run(["port", "web"]).success().prints(&format!("80/tcp -> 127.0.0.1:{port}"));
    env.run(["port", "web", "443"]).code(1).stderr_has("no public port '443/tcp' published for web");
    let shown = format!("127.0.0.1:{port}->80/tcp, 443/tcp");
    env.run(["ps", "--format", "{{.Ports}} {{.Networks}}"]).success().prints(&format!("{shown} bridge"));
    let host_port =
        r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}} {{.NetworkSettings.IPAddress}}"#;
    let inspected = env.run(["container", "inspect", "-f", host_port, "web"]).success();
    inspected.prints(&format!("{port} 10.0.2.100"));
    env.run(["stop", "-t", "0", "web"]).success();
    assert!(is_closed(local(port)) && processes(&id).is_empty(), "the helper is gone with the container");
    env.run(["port", "web"]).success().prints("");
    // The port that was found once is kept.
    env.run(["start", "web"]).success();
    assert_eq!(port_of(&env, "web", "80"), port);
    answers(local(port));
    env.run(["rm", "-f", "web"]).success();
    assert!(is_closed(local(port)) && processes(&id).is_empty());
}

/// Two servers of streams and one of datagrams, by the host's python: the small image has no program for the latter.
const ECHO: &str = "
import socket, threading
def stream(port):
    server = socket.create_server(('', port))
    while True:
        peer = server.accept()[0]
        peer.sendall(peer.recv(100))
        peer.close()
for port in 81, 82:
    threading.Thread(target=stream, args=[port]).start()
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('', 53))
while True:
    data, peer = server.recvfrom(100)
    server.sendto(data, peer)
";

#[test]
fn ranges_and_datagrams_are_published() {
    need!("docker-registry", "skopeo", "busybox");
    if !PathBuf::from("/usr/bin/python3").exists() {
        return crate::support::skip("/usr/bin/python3 is not there");
    }
    for helper in ["pasta", "slirp4netns"] {
        let Some((env, image)) = with_network(helper) else { return };
        let mut firsts = (20_000 + u16::try_from(std::process::id() % 10_000).unwrap()..60_000).step_by(7);
        let free = |port: &u16| {
            TcpListener::bind(local(*port)).is_ok() && TcpListener::bind(local(port + 1)).is_ok()
        };
        let first = firsts.find(free).unwrap();
        let range = format!("127.0.0.1:{first}-{}:81-82", first + 1);
        let args = ["run", "-d", "--name", "c", "--network", helper, "-p", &range, "-p", "53/udp"];
        let libraries = ["-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro"];
        let program = [&image, "/usr/bin/python3", "-c", ECHO];
        env.run(args.iter().chain(&libraries).chain(&program)).success();
        let shown = format!("127.0.0.1:{first}-{}->81-82/tcp, ", first + 1);
        env.run(["ps", "--format", "{{.Ports}}"]).success().stdout_has(&shown);
        for port in [first, first + 1] {
            assert_eq!(eventually("an echo", Duration::from_secs(10), || echoed(local(port))), *b"hello\n");
        }
        let port = port_of(&env, "c", "53/udp");
        // Not from the loopback address, which slirp4netns and older pastas do not answer.
        let Some(own) = own_address() else { return crate::support::skip("the host has no address") };
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let answer = eventually("an echo", Duration::from_secs(10), || {
            socket.send_to(b"ping", (own, port)).ok()?;
            let mut answer = [0; 16];
            let (count, _) = socket.recv_from(&mut answer).ok()?;
            Some(answer[..count].to_vec())
        });
        assert_eq!(answer, b"ping");
        env.run(["rm", "-f", "c"]).success();
    }
}

/// The address under which this machine reaches others.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("203.0.113.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

fn echoed(address: SocketAddr) -> Option<[u8; 6]> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(b"hello\n").ok()?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_port_that_is_taken_is_told_before_anything_runs() {
    need!("docker-registry", "skopeo", "busybox");
    let Some((env, image)) = with_network("pasta") else { return };
    let taken = TcpListener::bind(local(0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let publish = format!("127.0.0.1:{port}:80");
    for detach in ["-d", "-d=false"] {
        env.run(["run", detach, "--rm", "-p", &publish, &image, "true"])
            .code(125)
            .stderr_has(&format!("cannot publish 127.0.0.1:{port}/tcp"))
            .stderr_has("in use");
    }
    drop(taken);
    let web = |name: &str| {
        let args = ["run", "-d", "--name", name, "-p", &publish, &image];
        env.run(args.iter().chain(&SERVER).chain(&["80"]))
    };
    web("a").success();
    web("b").code(125).stderr_has("in use");
    answers(local(port));
    env.run(["stop", "-t", "0", "a"]).success();
    env.run(["start", "b"]).success();
    answers(local(port));
    env.run(["rm", "-f", "a", "b"]).success();
    // At once again, and again: a container that has ended has no port.
    for _ in 0..3 {
        env.run(["run", "--rm", "-p", &publish, &image, "true"]).success();
    }
    env.run(["run", "--rm", "-p", "80:x", &image, "true"]).code(125).stderr_has("invalid containerPort: x");
}

#[test]
fn the_hosts_own_services_are_out_of_reach() {
    need!("docker-registry", "skopeo", "busybox");
    for helper in ["pasta", "slirp4netns"] {
        let Some((env, image)) = with_network(helper) else { return };
        let service = TcpListener::bind(local(0)).unwrap();
        let port = service.local_addr().unwrap().port();
        service.set_nonblocking(true).unwrap();
        let script = format!(
            "ip link show eth0 >/dev/null || exit 9; for to in 127.0.0.1 10.0.2.2 10.0.2.3; do nc -w 1 $to {port} </dev/null; done; true"
        );
        env.run(["run", "--rm", "--network", helper, &image, "sh", "-c", &script]).success().prints("");
        assert!(service.accept().is_err(), "{helper}: somebody came");
    }
}

#[test]
fn slirp4netns_publishes_too() {
    need!("docker-registry", "skopeo", "busybox");
    let Some((env, image)) = with_network("slirp4netns") else { return };
    let args = ["run", "-d", "--name", "web", "--network", "slirp4netns", "-p", "127.0.0.1::80", &image];
    let id = env.run(args.iter().chain(&SERVER).chain(&["80"])).success();
    let port = port_of(&env, "web", "80");
    answers(local(port));
    assert!(!processes(id.text().trim()).is_empty());
    env.run(["rm", "-f", "web"]).success();
    assert!(is_closed(local(port)) && processes(id.text().trim()).is_empty());
    env.run(["run", "--rm", "--network", "slirp4netns:odd=1", &image, "true"]).code(125).stderr_has("odd=1");
}

#[test]
fn whatever_kills_the_monitor_leaves_no_network() {
    need!("docker-registry", "skopeo", "busybox");
    let Some((env, image)) = with_network("pasta") else { return };
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let args = ["run", "-d", "--name", "web", "-p", &publish, &image];
    let id = env.run(args.iter().chain(&SERVER).chain(&["80"])).success();
    let id = id.text().trim().to_owned();
    answers(local(port));
    let pid =
        env.run(["container", "inspect", "-f", "{{.State.Pid}}", "web"]).success().text().trim().to_owned();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    crate::support::must(std::process::Command::new("kill").args(["-9", &monitor]));
    eventually("the end of everything", Duration::from_secs(10), || {
        let gone = processes(&id).is_empty() && !PathBuf::from(format!("/proc/{pid}/ns/net")).exists();
        (gone && is_closed(local(port))).then_some(())
    });
    env.run(["start", "web"]).success();
    answers(local(port));
    // The container's own process.
    let pid =
        env.run(["container", "inspect", "-f", "{{.State.Pid}}", "web"]).success().text().trim().to_owned();
    env.run(["kill", "web"]).success();
    eventually("the end of everything", Duration::from_secs(10), || {
        (processes(&id).is_empty()
            && is_closed(local(port))
            && !PathBuf::from(format!("/proc/{pid}")).exists())
        .then_some(())
    });
    env.run(["rm", "web"]).success();
}

#[test]
fn a_killed_command_leaves_no_network() {
    need!("docker-registry", "skopeo", "busybox");
    let Some((env, image)) = with_network("pasta") else { return };
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let args = ["run", "--rm", "--name", "web", "-p", &publish, &image];
    let running = env.spawn(args.iter().chain(&SERVER).chain(&["80"]));
    answers(local(port));
    let id = env.run(["container", "inspect", "-f", "{{.Id}}", "web"]).success().text().trim().to_owned();
    assert!(!processes(&id).is_empty());
    running.signal("KILL");
    eventually("the end of everything", Duration::from_secs(10), || {
        (processes(&id).is_empty() && is_closed(local(port))).then_some(())
    });
    running.finish();
}

#[test]
fn everything_exposed_can_be_published_and_other_addresses_too() {
    need!("docker-registry", "skopeo", "busybox");
    let Some((env, image)) = with_network("pasta") else { return };
    let args = ["run", "-d", "--name", "web", "-P", "--expose", "80", "--expose", "9-10/udp", &image];
    env.run(args.iter().chain(&SERVER).chain(&["80"])).success();
    answers(local(port_of(&env, "web", "80")));
    let said = env.run(["port", "web"]).success();
    assert_eq!(said.text().lines().count(), 3, "{}", said.text());
    // The same network for a further program.
    env.run(["exec", "web", "wget", "-qO-", "http://127.0.0.1/one"]).success().prints("one");
    env.run(["rm", "-f", "web"]).success();
    if TcpListener::bind("[::1]:0").is_ok() {
        let args = ["run", "-d", "--name", "six", "-p", "[::1]::80", &image];
        env.run(args.iter().chain(&SERVER).chain(&["[::]:80"])).success();
        let port = port_of(&env, "six", "80");
        env.run(["port", "six"]).success().prints(&format!("80/tcp -> [::1]:{port}"));
        answers(format!("[::1]:{port}").parse().unwrap());
        assert!(is_closed(local(port)));
        env.run(["rm", "-f", "six"]).success();
    }
}

#[test]
fn links_in_the_image_lead_our_files_nowhere() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let canary = env.write("canary", "alive");
    let links = format!(
        "ln -s {0} /etc/hosts; ln -s ../../../../../../../..{0} /etc/hostname; ln -s /data/one /etc/resolv.conf",
        canary.display()
    );
    env.run([
        "run",
        "--name",
        "c",
        "--network",
        "none",
        "--no-hosts",
        "--no-hostname",
        "--dns",
        "none",
        &image,
        "sh",
        "-c",
        &links,
    ])
    .success();
    env.run(["commit", "-q", "c", "hostile"]).success();
    env.run(["run", "--rm", "--network", "none", "-h", "me", "hostile", "cat", "/data/one"])
        .success()
        .stdout_has("nameserver");
    env.run([
        "run",
        "--rm",
        "--network",
        "none",
        "hostile",
        "sh",
        "-c",
        "echo evil >/etc/hosts; echo evil >/etc/hostname",
    ])
    .success();
    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "alive");
    env.run(["rm", "c"]).success();
}

#[test]
fn a_container_can_have_the_network_of_another() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let args = ["run", "-d", "--name", "a", "--network", "none", "--hostname", "first", &image];
    env.run(args.iter().chain(&SERVER).chain(&["127.0.0.1:8000"])).success();
    let join = |more: &[&str]| {
        let args = ["run", "--rm", "--network", "container:a"];
        env.run(args.iter().chain(more))
    };
    eventually("the server", Duration::from_secs(10), || {
        let said = env.run(["exec", "a", "wget", "-qO-", "http://127.0.0.1:8000/one"]);
        (said.text() == "one").then_some(())
    });
    join(&[&image, "wget", "-qO-", "http://127.0.0.1:8000/one"]).success().prints("one");
    join(&[&image, "sh", "-c", "hostname; grep -c first /etc/hosts"]).success().prints("first\n1");
    for (flags, word) in [
        (&["--hostname", "x"][..], "hostname"),
        (&["-p", "80:80"], "port publishing"),
        (&["--expose", "80"], "port exposing"),
        (&["--dns", "1.1.1.1"], "dns"),
        (&["--add-host", "a:1.1.1.1"], "custom host-to-IP mapping"),
        (&["--mac-address", "02:00:00:00:00:01"], "mac-address"),
    ] {
        let said = join(&[flags, &[&image, "true"]].concat());
        said.code(125).stderr_has(&format!("conflicting options: {word} and the network mode"));
    }
    env.run([
        "create",
        "--name",
        "b",
        "--network",
        "container:a",
        &image,
        "wget",
        "-qO-",
        "http://127.0.0.1:8000/one",
    ])
    .success();
    env.run(["start", "-a", "b"]).success().prints("one");
    env.run(["stop", "-t", "0", "a"]).success();
    join(&[&image, "true"]).code(125).stderr_has("non running container: a");
    join(&["--network", "container:nobody", &image, "true"]).code(125);
    env.run(["start", "b"]).code(1).stderr_has("non running container: a");
    env.run(["rm", "a", "b"]).success();
}

#[test]
fn names_and_resolvers_are_what_was_asked_for() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let run = |args: &[&str]| env.run(["run", "--rm", "--network", "none"].iter().chain(args));
    let names = run(&[
        "--add-host",
        "db:1.2.3.4",
        "-h",
        "me",
        "--domainname",
        "example.org",
        &image,
        "cat",
        "/etc/hosts",
    ]);
    names.success().stdout_has("1.2.3.4\tdb\n").stdout_has("\tme.example.org me\n");
    run(&["--domainname", "example.org", &image, "cat", "/proc/sys/kernel/domainname"])
        .success()
        .prints("example.org");
    let resolver = ["--dns", "9.9.9.9", "--dns-search", "a.example", "--dns-opt", "ndots:2"];
    run(&[&resolver[..], &[&image, "cat", "/etc/resolv.conf"]].concat())
        .success()
        .stdout_has("search a.example\nnameserver 9.9.9.9\noptions ndots:2\n");
    run(&["--no-hosts", "--dns", "none", "--no-hostname", &image, "ls", "/etc"])
        .success()
        .prints("group\npasswd");
    for bad in [
        &["--dns", "x"][..],
        &["--dns-search", "a\nnameserver 6.6.6.6"],
        &["--hostname", "a\n6.6.6.6 b"],
        &["--domainname", "a b"],
        &["--add-host", "a\n6.6.6.6 b:1.2.3.4"],
        &["--mac-address", "nonsense"],
        &["--ip", "10.0.0.1"],
    ] {
        run(&[bad, &[&image, "true"]].concat()).code(125);
    }
    env.run(["run", "--rm", "--network", "mine", &image, "true"])
        .code(125)
        .stderr_has("no such network: mine");
}

#[test]
fn a_private_network_has_its_own_names_and_addresses() {
    need!("docker-registry", "skopeo", "busybox");
    let Some((env, image)) = with_network("pasta") else { return };
    let flags = ["--ip", "10.7.0.9", "--mac-address", "02:00:00:00:00:09", "-h", "me"];
    let script = "ip -4 -o addr show eth0; cat /sys/class/net/eth0/address; cat /etc/hosts";
    env.run(["run", "--rm"].iter().chain(&flags).chain(&[image.as_str(), "sh", "-c", script]))
        .success()
        .stdout_has("10.7.0.9/24")
        .stdout_has("02:00:00:00:00:09")
        .stdout_has("10.7.0.9\tme\n");
    let nowhere = env.run([
        "run",
        "--rm",
        "--network",
        "private",
        &image,
        "grep",
        "-E",
        "nameserver (127|::1)",
        "/etc/resolv.conf",
    ]);
    nowhere.code(1).prints("");
}

#[test]
fn without_a_helper_nobody_gets_the_hosts_network_for_a_private_one() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let bin = env.work().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["newuidmap", "newgidmap"] {
        if let Some(path) = program(name) {
            std::os::unix::fs::symlink(path, bin.join(name)).unwrap();
        }
    }
    let env = env.with("PATH", &bin);
    for args in [&["--network", "private"][..], &["-p", "80"], &["--network", "bridge"]] {
        env.run(["run", "--rm"].iter().chain(args).chain(&[image.as_str(), "true"]))
            .code(125)
            .stderr_has("neither pasta nor slirp4netns")
            .stderr_has("install passt");
    }
    env.run(["run", "--rm", &image, "true"]).success().stderr_has("using the host's network");
    env.run(["run", "--rm", "--network", "host", &image, "true"]).success().stderr_lacks("network");
    env.run(["run", "--rm", "--network", "host", "-p", "80", &image, "true"])
        .success()
        .stderr_has("published ports are discarded");
    env.run(["ps", "-aq"]).success().prints("");
}
