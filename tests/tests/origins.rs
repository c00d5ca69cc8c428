//! Two stock web servers, directly or behind nginx or HAProxy: one is killed, later the other is frozen, in mid-transfer,
//! and nothing of it is heard.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jukebox_tests::rig::music::{self, Song};
use jukebox_tests::rig::player::{Player, Setup};
use jukebox_tests::rig::tls::Ca;
use jukebox_tests::rig::{self, Process, SOON, free_port, office, until, write};
use serde_json::Value;

const SECONDS: f64 = 60.0;
const RATE: usize = 44_100;

/// A library of one song, and two nginx that serve it, each request at twice the pace of the music.
struct Backends {
    folder: tempfile::TempDir,
    ca: Ca,
    servers: [Process; 2],
    ports: [u16; 2],
    /// What the first is configured with, to start it again.
    config: String,
}

impl Backends {
    fn start() -> Self {
        let folder = rig::folder();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("songs")).unwrap();
        let song = Song { title: "Waterloo", seconds: SECONDS, ..Song::default() };
        music::make(&at("songs/0.flac"), &song);
        office::publish(&at("songs"), &at("library"));
        let size = std::fs::metadata(at("songs/0.flac")).unwrap().len();
        let ca = Ca::new(folder.path());
        let ports = [0; 2].map(|_| free_port());
        let limit = 2 * size / SECONDS as u64;
        let config = |n: usize| {
            format!(
                "server {{ listen 127.0.0.1:{} ssl http2; ssl_certificate {}; ssl_certificate_key {}; root {};
                 limit_rate {limit}; }} server {{ listen 127.0.0.1:{}; root {}; limit_rate {limit}; }}",
                ports[n],
                ca.certificate.display(),
                ca.key.display(),
                at("library").display(),
                plain(ports[n]),
                at("library").display(),
            )
        };
        let servers = [0, 1].map(|n| nginx(&at(&format!("web{n}")), &config(n), ports[n]));
        let config = config(0);
        Self { folder, ca, servers, ports, config }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Behind a proxy nobody needs TLS; the port of that beside the other.
fn plain(port: u16) -> u16 {
    if port > 40_000 { port - 20_000 } else { port + 20_000 }
}

/// nginx in one process: a signal reaches all of it.
fn nginx(dir: &Path, servers: &str, port: u16) -> Process {
    std::fs::create_dir(dir).unwrap();
    let d = dir.display();
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|n| format!("{n}_temp_path {d}/{n};")).concat();
    write(
        &dir.join("nginx.conf"),
        format!(
            "daemon off; master_process off; pid {d}/pid; error_log stderr notice; events {{}}
             http {{ default_type application/octet-stream; access_log {d}/log; {temporary} {servers} }}"
        ),
    );
    let path = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|p| Path::new(p).exists());
    let mut command = Command::new(path.unwrap_or("nginx"));
    let process = Process::start(
        "nginx",
        command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).args(["-e", "stderr"]),
    );
    until("nginx accepts connections", SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
    process
}

/// Plays the song; kills one in the middle of it, wakes it up again, freezes the other; hears no gap.
fn unheard(backends: Backends, origins: Vec<String>, front: Option<Process>) {
    let setup = Setup { origins, ca: Some(backends.ca.ca.clone()), ..Setup::default() };
    let player = Player::start(&backends.at("player"), setup);
    until("the catalogue is there", SOON, || player.cli(&["search", "x"]).status.success().then_some(()));
    player.told(&["add", "waterloo"]);
    let heard = |seconds: usize| {
        until("it sounds", Duration::from_secs(60), || {
            (player.recording().sounding().len() > seconds * RATE).then_some(())
        });
    };
    let on_board = || -> u64 {
        let queue: Value = serde_json::from_str(&player.told(&["--json", "queue"])).unwrap();
        queue["data"]["entries"][0]["on_board_pct"].as_u64().unwrap_or_else(|| panic!("{queue}"))
    };
    let [mut first, second] = backends.servers;
    heard(4);
    assert!(on_board() < 80, "in mid-transfer");
    first.kill();
    heard(7);
    assert!(on_board() < 100, "still in mid-transfer");
    let _again = nginx(&backends.folder.path().join("again"), &backends.config, backends.ports[0]);
    second.signal("STOP");
    until("all is on board", Duration::from_secs(60), || (on_board() == 100).then_some(()));
    heard(20);
    second.signal("CONT");
    let sound = player.recording();
    assert!(sound.gaps(1.0).is_empty(), "{:?}", sound.gaps(1.0));
    drop(front);
}

#[test]
fn two_origins() {
    let backends = Backends::start();
    let origins = backends.ports.map(|p| format!("https://127.0.0.1:{p}")).to_vec();
    unheard(backends, origins, None);
}

#[test]
fn behind_nginx() {
    let backends = Backends::start();
    let port = free_port();
    let [a, b] = backends.ports.map(plain);
    let front = format!(
        "upstream both {{ server 127.0.0.1:{a} max_fails=1; server 127.0.0.1:{b} max_fails=1; }}
         server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {}; ssl_certificate_key {};
         location / {{ proxy_pass http://both; proxy_buffering off; proxy_connect_timeout 500ms; proxy_read_timeout 1500ms;
         proxy_next_upstream error timeout; }} }}",
        backends.ca.certificate.display(),
        backends.ca.key.display()
    );
    let front = nginx(&backends.at("front"), &front, port);
    unheard(backends, vec![format!("https://127.0.0.1:{port}")], Some(front));
}

#[test]
fn behind_haproxy() {
    let backends = Backends::start();
    let port = free_port();
    let [a, b] = backends.ports.map(plain);
    let pem = [&backends.ca.certificate, &backends.ca.key].map(|f| std::fs::read_to_string(f).unwrap()).concat();
    write(&backends.at("both.pem"), pem);
    let config = backends.at("haproxy.cfg");
    write(
        &config,
        format!(
            "defaults\n mode http\n timeout connect 500ms\n timeout client 30s\n timeout server 1500ms\n option redispatch\n \
             retries 3\n retry-on conn-failure empty-response response-timeout\n\
             frontend front\n bind 127.0.0.1:{port} ssl crt {} alpn h2,http/1.1\n default_backend both\n\
             backend both\n option httpchk GET /library.json\n default-server inter 500ms fall 2 rise 2\n \
             server a 127.0.0.1:{a} check\n server b 127.0.0.1:{b} check\n",
            backends.at("both.pem").display()
        ),
    );
    let path = ["/usr/sbin/haproxy", "/usr/bin/haproxy"].into_iter().find(|p| Path::new(p).exists());
    let front = Process::start("haproxy", Command::new(path.unwrap_or("haproxy")).arg("-db").arg("-f").arg(&config));
    until("HAProxy accepts connections", SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
    unheard(backends, vec![format!("https://127.0.0.1:{port}")], Some(front));
}
