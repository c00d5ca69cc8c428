//! The office that serves, with real tools: curl, mosquitto's clients, a stock nginx, a stock mosquitto.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use jukebox::clock::Clock;
use jukebox::config::{Config, tls_config};
use jukebox_core::library::Digest;
use jukebox_tests::rig::{self, Process, SOON, folder, free_port, program, until};
use serde_json::Value;
use tempfile::TempDir;

/// An object of the library in these tests: big enough for several reads, and no text.
fn object() -> Vec<u8> {
    (0..200_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

const ROOT: &str = r#"{"format":1,"library":"0123456789abcdef0123456789abcdef","revision":3,"written":"2026-11-21T00:00:00Z","previous":null,"pages":[],"depth":0,"playlists":[],"signatures":[]}"#;

struct Office {
    serve: Process,
    folder: TempDir,
    https: u16,
    mqtt: u16,
}

impl Office {
    fn start(more: &[&str]) -> Self {
        let folder = prepared();
        Self::start_in(folder, more)
    }

    fn start_in(folder: TempDir, more: &[&str]) -> Self {
        let mut command = office(folder.path());
        command.args(["serve", "library", "--name", "localhost", "--bind", "127.0.0.1", "--https", "0"]).args(more);
        if !more.contains(&"--mqtt-port") && !more.contains(&"--broker") {
            command.args(["--mqtt-port", "0"]);
        }
        let serve = Process::start("serve", &mut command);
        serve.line("Try: ");
        let settings: Value =
            serde_json::from_slice(&fs::read(folder.path().join("state/office.json")).unwrap()).unwrap();
        let port = |key: &str| u16::try_from(settings[key].as_u64().unwrap()).unwrap();
        Self { serve, https: port("https"), mqtt: port("mqtt"), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn add(&self, name: &str) -> Config {
        rig::run(office(self.folder.path()).args(["player", "add", name]));
        Config::load(&self.path(&format!("{name}.toml"))).unwrap()
    }

    fn broker_pid(&self) -> u32 {
        pid_of(&self.serve.line("  broker "))
    }

    /// One of mosquitto's clients as `user`.
    fn mosquitto(&self, tool: &str, user: &str, password: &str) -> Command {
        // mosquitto's clients keep their lines to themselves when they write into a pipe.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", tool]).args([
            "-V",
            "5",
            "-h",
            "localhost",
            "-p",
            &self.mqtt.to_string(),
            "-u",
            user,
            "-P",
            password,
        ]);
        command.arg("--cafile").arg(self.path("state/ca.pem"));
        command
    }

    fn bot(&self, tool: &str) -> Command {
        let password = fs::read_to_string(self.path("state/bot.password")).unwrap();
        self.mosquitto(tool, "bot", password.trim())
    }

    fn player(&self, tool: &str, config: &Config) -> Command {
        let password = config.mqtt.as_ref().unwrap().password.as_ref().unwrap().reveal();
        let mut command = self.mosquitto(tool, &config.office.player, password);
        command.args(["-i", &config.office.player]);
        command
    }
}

/// A folder with a library in it that everybody may read, as a web server's user must.
fn prepared() -> TempDir {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let bytes = object();
    let path = folder.path().join("library").join(Digest::of(&bytes).path());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::write(folder.path().join("library/library.json"), ROOT).unwrap();
    fs::write(folder.path().join("library/notes.txt"), "not served").unwrap();
    fs::write(folder.path().join("secret"), "not served either").unwrap();
    folder
}

fn office(folder: &Path) -> Command {
    let mut command = Command::new(program("jukebox-office"));
    command.current_dir(folder).env("JUKEBOX_OFFICE_STATE", "state");
    command
}

fn pid_of(line: &str) -> u32 {
    line.rsplit_once("process ").unwrap().1.trim_end_matches(')').parse().unwrap()
}

/// Whether a process is there and no corpse.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| !s.rsplit(')').next().unwrap().trim().starts_with('Z'))
}

/// The TCP ports that a process listens on, by the kernel's own tables (`proc(5)`: state 0A, port in hex, inode).
fn ports_of(pid: u32) -> Vec<u16> {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter_map(|l| Some(l.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|t| fs::read_to_string(format!("/proc/{pid}/net/{t}")).unwrap_or_default());
    let rows = tables.iter().flat_map(|t| t.lines()).map(|l| l.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(3) == Some(&"0A") && sockets.iter().any(|s| row.get(9) == Some(&s.as_str())))
        .map(|row| u16::from_str_radix(row[1].rsplit(':').next().unwrap(), 16).unwrap())
        .collect()
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Publishes with `-d` and returns the reason code of the PUBACK.
fn puback(command: &mut Command, topic: &str) -> u32 {
    let out = said(&command.args(["-q", "1", "-d", "-m", "x", "-t", topic]).output().unwrap());
    let code = out.split("PUBACK").nth(1).and_then(|t| t.split("RC:").nth(1)).unwrap_or_else(|| panic!("{out}"));
    code.split(')').next().unwrap().parse().unwrap()
}

/// An answer over HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    version: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}

fn curl(folder: &Path, url: &str, args: &[&str]) -> Answer {
    let body = folder.join("curl.body");
    let _ = fs::remove_file(&body);
    let head = rig::run(
        Command::new("curl")
            .args(["-sS", "--path-as-is", "--max-time", "20", "-D", "-", "-w", "%{stderr}", url])
            .args(args)
            .arg("--cacert")
            .arg(folder.join("state/ca.pem"))
            .arg("-o")
            .arg(&body),
    );
    let mut lines = head.lines();
    let first = lines.next().unwrap();
    let mut words = first.split_whitespace();
    let (version, status) = (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap());
    let headers = lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()));
    Answer { status, version, headers: headers.collect(), body: fs::read(&body).unwrap_or_default() }
}

/// What any server of a library must do; returns what two servers must have in common.
fn check_http(folder: &Path, base: &str) -> Vec<String> {
    let bytes = object();
    let name = Digest::of(&bytes).path();
    let url = format!("{base}{name}");
    let root = format!("{base}library.json");
    let ask = |url: &str, args: &[&str]| curl(folder, url, args);

    let whole = ask(&url, &[]);
    assert_eq!((whole.status, whole.body.len()), (200, bytes.len()));
    assert!(whole.body == bytes);
    assert_eq!(whole.header("cache-control"), "public, max-age=31536000, immutable");
    let (etag, modified) = (whole.header("etag").to_owned(), whole.header("last-modified").to_owned());
    assert!(etag.starts_with('"') && !modified.is_empty());

    let part = ask(&url, &["-r", "100000-100009"]);
    assert_eq!((part.status, part.body.as_slice()), (206, &bytes[100_000..100_010]));
    assert_eq!(part.header("content-range"), format!("bytes 100000-100009/{}", bytes.len()));
    assert_eq!(ask(&url, &["-r", "-10"]).body, &bytes[bytes.len() - 10..]);
    assert_eq!(ask(&url, &["-r", "799990-"]).body, &bytes[799_990..]);
    let beyond = ask(&url, &["-r", "800000-800001"]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */800000"));
    assert_eq!(ask(&url, &["-r", "0-1,5-6"]).status, 200, "several ranges at once are answered by the whole");

    let same = ask(&url, &["-r", "0-9", "-H", &format!("If-Range: {etag}")]);
    assert_eq!((same.status, same.body.len()), (206, 10));
    assert_eq!(ask(&url, &["-r", "0-9", "-H", &format!("If-Range: {modified}")]).status, 206);
    let other = ask(&url, &["-r", "0-9", "-H", "If-Range: \"other\""]);
    assert_eq!((other.status, other.body.len()), (200, bytes.len()));

    let head = ask(&url, &["-I"]);
    assert_eq!((head.status, head.header("content-length")), (200, "800000"));
    let fresh = ask(&url, &["-H", &format!("If-None-Match: {etag}")]);
    assert_eq!((fresh.status, fresh.body.len()), (304, 0));
    assert_eq!(ask(&url, &["-H", &format!("If-Modified-Since: {modified}")]).status, 304);

    let json = ask(&root, &[]);
    assert_eq!((json.status, json.body.as_slice()), (200, ROOT.as_bytes()));
    assert_eq!(json.header("cache-control"), "no-cache");
    assert_eq!(json.header("content-type"), "application/json");
    assert_eq!(ask(&root, &["-H", &format!("If-None-Match: {}", json.header("etag"))]).status, 304);

    for path in [
        "",
        "o/",
        "notes.txt",
        "../secret",
        "o/../../secret",
        "o/%2e%2e/%2e%2e/secret",
        "//etc/passwd",
        &name[..5],
        &name.to_uppercase(),
        &format!("o/00/{}", "0".repeat(64)),
    ] {
        let answer = ask(&format!("{base}{path}"), &[]);
        assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!text.contains("not served") && !text.contains("library"), "{path}: {text}");
    }
    assert_eq!(ask(&root, &["-X", "DELETE"]).status, 405);
    let mut common = Vec::new();
    for answer in [&whole, &part, &head, &json] {
        let mut names =
            vec!["cache-control", "content-type", "content-length", "content-range", "x-content-type-options"];
        // A part says by itself that there are parts: nginx leaves it out there.
        names.extend((answer.status == 200).then_some("accept-ranges"));
        common.extend(names.iter().map(|name| format!("{} {name}: {}", answer.status, answer.header(name))));
    }
    common
}

#[test]
fn the_library_is_served_alike_by_serve_over_tls_and_plain_and_by_a_stock_nginx() {
    let plain = free_port();
    let office = Office::start(&["--http", &plain.to_string()]);
    let folder = office.folder.path();
    let base = format!("https://localhost:{}/", office.https);
    let ours = check_http(folder, &base);
    assert_eq!(check_http(folder, &format!("http://localhost:{plain}/")), ours);
    assert_eq!(curl(folder, &format!("{base}library.json"), &["--http2"]).version, "HTTP/2");
    assert_eq!(curl(folder, &format!("{base}library.json"), &["--http1.1"]).version, "HTTP/1.1");
    let untrusted = Command::new("curl").args(["-sS", &base]).output().unwrap();
    assert!(said(&untrusted).contains("certificate"), "only the private CA vouches: {}", said(&untrusted));

    let port = free_port();
    let site = rig::run(self::office(folder).args([
        "config",
        "nginx",
        "library",
        "--bind",
        "127.0.0.1",
        "--https",
        &port.to_string(),
    ]));
    fs::write(folder.join("jukebox.conf"), site).unwrap();
    let at = folder.display();
    // The settings of Debian's nginx.conf, the traps among them.
    fs::write(
        folder.join("nginx.conf"),
        format!(
            "daemon off; pid {at}/nginx.pid; error_log stderr; events {{}}
http {{ sendfile on; tcp_nopush on; gzip on; access_log off; include /etc/nginx/mime.types; default_type text/plain;
client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3; uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;
include {at}/jukebox.conf; }}"
        ),
    )
    .unwrap();
    let nginx = || {
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(folder.join("nginx.conf")).args(["-p", &at.to_string()]);
        command
    };
    let test = nginx().arg("-t").output().unwrap();
    assert!(test.status.success() && !said(&test).contains("[warn]"), "{}", said(&test));
    let mut web = Process::start("nginx", &mut nginx());
    until("nginx listens", SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let base = format!("https://localhost:{port}/");
    assert_eq!(check_http(folder, &base), ours);
    assert_eq!(curl(folder, &format!("{base}library.json"), &["--http2"]).version, "HTTP/2");
    web.terminate();
}

#[test]
fn a_player_is_added_at_any_time_and_its_file_is_right() {
    let folder = prepared();
    rig::run(office(folder.path()).args(["player", "add", "early"]));
    let office = Office::start_in(folder, &["--site", "berlin"]);
    let lobby = office.add("lobby");
    assert_eq!((lobby.office.site.as_str(), lobby.office.player.as_str()), ("berlin", "lobby"));
    assert_eq!(lobby.office.origins, [format!("https://localhost:{}/", office.https)]);
    assert_eq!(lobby.mqtt.as_ref().unwrap().address(), ("localhost".into(), office.mqtt, true));
    assert!(tls_config(&lobby, Clock::new(None)).unwrap().is_some() && !lobby.office.insecure);
    assert!(!lobby.check_report().unwrap().contains("warning"));
    assert_eq!(fs::metadata(office.path("lobby.toml")).unwrap().permissions().mode() & 0o777, 0o600);

    let early = Config::load(&office.path("early.toml")).unwrap();
    for player in [&early, &lobby] {
        let topic = format!("jukebox/1/berlin/{}/now", player.office.player);
        assert!(matches!(puback(&mut office.player("mosquitto_pub", player), &topic), 0 | 16));
    }
    let add =
        |args: &[&str]| said(&self::office(office.folder.path()).args(["player", "add"]).args(args).output().unwrap());
    assert!(add(&["lobby", "--out", "b.toml"]).contains("there already"));
    assert!(add(&["All"]).contains("a-z") && add(&["reply"]).contains("reply"));
    assert!(add(&["third", "--out", "lobby.toml"]).contains("--out"));
    assert!(!office.path("b.toml").exists());

    // A new password that nobody could be told is none: the old one stays.
    assert!(add(&["lobby", "--replace", "--out", "nowhere/lobby.toml"]).contains("nowhere/lobby.toml: No such file"));
    assert!(add(&["lobby", "--replace", "--out", "library"]).contains("library: "));
    assert!(matches!(puback(&mut office.player("mosquitto_pub", &lobby), "jukebox/1/berlin/lobby/now"), 0 | 16));
    // A new password: the old one is worth nothing.
    add(&["lobby", "--replace"]);
    let refused = office.player("mosquitto_pub", &lobby).args(["-t", "jukebox/1/berlin/lobby/now", "-m", "x"]).output();
    assert!(said(&refused.unwrap()).contains("Not authorized"));
    let lobby = Config::load(&office.path("lobby.toml")).unwrap();
    assert!(matches!(puback(&mut office.player("mosquitto_pub", &lobby), "jukebox/1/berlin/lobby/now"), 0 | 16));

    let list = rig::run(self::office(office.folder.path()).args(["player", "list"]));
    assert_eq!(list.lines().map(|l| l.split_whitespace().next().unwrap()).collect::<Vec<_>>(), ["early", "lobby"]);
    rig::run(self::office(office.folder.path()).args(["player", "remove", "lobby"]));
    let gone = office.player("mosquitto_pub", &lobby).args(["-t", "a", "-m", "x"]).output().unwrap();
    assert!(said(&gone).contains("Not authorized"));
    assert!(
        said(&self::office(office.folder.path()).args(["player", "remove", "lobby"]).output().unwrap())
            .contains("never added")
    );
}

#[test]
fn a_player_speaks_for_itself_only_and_a_bot_commands_all() {
    let office = Office::start(&[]);
    assert_eq!(ports_of(office.broker_pid()), [office.mqtt], "one door, and no plain one beside it");
    assert_eq!(ports_of(office.serve.id()), [office.https]);
    let (a, b) = (office.add("alpha"), office.add("beta"));
    // Beta listens, as a player does; alpha tries everything against it.
    let beta = Process::start(
        "beta",
        office.player("mosquitto_sub", &b).args(["-q", "1", "-d", "-v"]).args([
            "-t",
            "jukebox/1/hq/beta/command/#",
            "-t",
            "jukebox/1/hq/all/command/#",
            "-t",
            "jukebox/1/hq/alpha/#",
        ]),
    );
    assert!(beta.line("Subscribed").ends_with("1, 1, 135"), "{:?}", beta.lines());
    let alpha = |topic: &str| puback(&mut office.player("mosquitto_pub", &a), topic);
    for denied in ["jukebox/1/hq/beta/now", "jukebox/1/hq/beta/command/skip", "jukebox/1/hq/all/command/skip", "other"]
    {
        assert_eq!(alpha(denied), 135, "{denied}");
    }
    for allowed in ["jukebox/1/hq/alpha/now", "jukebox/1/hq/alpha/command/ping", "jukebox/1/hq/reply/me"] {
        assert!(matches!(alpha(allowed), 0 | 16), "{allowed}");
    }
    let password = a.mqtt.as_ref().unwrap().password.as_ref().unwrap().reveal();
    let mut thief = office.mosquitto("mosquitto_sub", "alpha", password);
    let out = thief.args(["-i", "beta", "-t", "jukebox/1/hq/alpha/#", "-C", "1", "-W", "5"]).output().unwrap();
    assert!(said(&out).contains("Not authorized"), "{}", said(&out));
    let anonymous = Command::new("mosquitto_sub")
        .args(["-h", "localhost", "-p", &office.mqtt.to_string(), "-t", "#", "-W", "5", "--cafile"])
        .arg(office.path("state/ca.pem"))
        .output()
        .unwrap();
    assert!(said(&anonymous).to_lowercase().contains("not authori"), "{}", said(&anonymous));

    let bot = |topic: &str| puback(&mut office.bot("mosquitto_pub"), topic);
    assert_eq!(bot("jukebox/1/hq/beta/command/skip"), 0);
    assert_eq!(bot("jukebox/1/hq/all/command/stop"), 0);
    beta.line("jukebox/1/hq/beta/command/skip x");
    beta.line("jukebox/1/hq/all/command/stop x");
    assert_eq!(bot("jukebox/1/hq/beta/now"), 135);
    assert_eq!(bot("$CONTROL/dynamic-security/v1"), 135);
    // Two bots at once share the user and do not throw each other out; both hear a reply.
    let listeners: Vec<Process> = (0..2)
        .map(|_| Process::start("bot", office.bot("mosquitto_sub").args(["-d", "-v", "-t", "jukebox/1/#", "-t", "#"])))
        .collect();
    for listener in &listeners {
        assert!(listener.line("Subscribed").ends_with("0, 135"));
    }
    alpha("jukebox/1/hq/reply/me");
    for listener in &listeners {
        listener.line("jukebox/1/hq/reply/me x");
    }
    assert!(!beta.lines().iter().any(|l| l.contains("CONNECT (") || l.contains("alpha/now")), "{:?}", beta.lines());
}

#[test]
fn a_broker_that_dies_comes_back_with_everything_it_knew() {
    let office = Office::start(&[]);
    let config = office.add("lobby");
    let first = office.broker_pid();
    let mark = office.serve.mark();
    assert!(Command::new("kill").args(["-9", &first.to_string()]).status().unwrap().success());
    let line = office.serve.line_from(mark, SOON, "the broker runs again", |l| l.contains("the broker runs again"));
    let second = pid_of(&line);
    assert!(second != first && lives(second));
    until("the broker listens", SOON, || std::net::TcpStream::connect(("127.0.0.1", office.mqtt)).ok());
    // A player added while it ran is still known.
    assert!(matches!(puback(&mut office.player("mosquitto_pub", &config), "jukebox/1/hq/lobby/now"), 0 | 16));
}

#[test]
fn it_stops_within_two_seconds_and_leaves_nothing_and_a_kill_leaves_nothing_either() {
    for signal in ["TERM", "INT"] {
        let mut office = Office::start(&[]);
        let config = office.add("lobby");
        let broker = office.broker_pid();
        // With guests: a player that listens, and a download that nobody reads.
        let guest =
            Process::start("guest", office.player("mosquitto_sub", &config).args(["-d", "-t", "jukebox/1/hq/lobby/#"]));
        guest.line("Subscribed");
        let idle = std::net::TcpStream::connect(("127.0.0.1", office.https)).unwrap();
        let start = Instant::now();
        office.serve.signal(signal);
        assert!(office.serve.wait().success());
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(!lives(broker));
        drop(idle);
    }
    let mut office = Office::start(&[]);
    let broker = office.broker_pid();
    assert!(lives(broker));
    office.serve.kill();
    until("the broker ends with its parent", Duration::from_secs(2), || (!lives(broker)).then_some(()));
    // And the folder is free again, with the same names, ports and passwords.
    let password = fs::read(office.path("state/bot.password")).unwrap();
    let again = Office::start_in(office.folder, &[]);
    assert_eq!(fs::read(again.path("state/bot.password")).unwrap(), password);
}

#[test]
fn a_stock_mosquitto_takes_the_printed_configuration_and_the_same_players() {
    let folder = prepared();
    let at = folder.path();
    rig::run(office(at).args(["player", "add", "early", "--broker", "mqtts://localhost:8883"]));
    let port = free_port().to_string();
    let mine = Command::new("id").arg("-u").output().unwrap().stdout != b"0\n";
    let mut args =
        vec!["config", "mosquitto", "--bind", "127.0.0.1", "--mqtt-port", &port, "--name", "localhost", "--dir"];
    let dir = at.join("stock").display().to_string();
    args.push(&dir);
    let text = rig::run(office(at).args(args));
    for line in text.lines().filter_map(|l| l.strip_prefix("#   sudo ")) {
        // Only root can give files away; anybody else starts the broker as himself.
        let line = if mine { line.replace("-o mosquitto ", "") } else { line.to_owned() };
        rig::run(Command::new("sh").args(["-c", &line]));
    }
    fs::write(at.join("jukebox.conf"), &text).unwrap();
    let broker =
        Process::start("mosquitto", Command::new("/usr/sbin/mosquitto").arg("-c").arg(at.join("jukebox.conf")));
    let port: u16 = port.parse().unwrap();
    until("mosquitto listens", SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let url = format!("mqtts://localhost:{port}");
    let out = rig::run(office(at).args(["player", "add", "lobby", "--broker", &url]));
    assert!(!out.contains("did not take it"), "{out}");
    let stock = Office::start_in(folder, &["--broker", &url]);
    assert!(stock.serve.line("  broker ").contains("not ours"));
    let stock = Office { mqtt: port, ..stock };
    let lobby = Config::load(&stock.path("lobby.toml")).unwrap();
    assert_eq!(lobby.mqtt.as_ref().unwrap().address(), ("localhost".into(), port, true));
    assert!(matches!(puback(&mut stock.player("mosquitto_pub", &lobby), "jukebox/1/hq/lobby/now"), 0 | 16));
    assert_eq!(puback(&mut stock.player("mosquitto_pub", &lobby), "jukebox/1/hq/early/now"), 135);
    assert!(matches!(puback(&mut stock.bot("mosquitto_pub"), "jukebox/1/hq/lobby/command/skip"), 0 | 16));
    assert_eq!(ports_of(broker.id()), [port]);
}

#[test]
fn what_stands_in_the_way_is_said_in_one_line() {
    let office = Office::start(&[]);
    let refused = |args: &[&str]| {
        let out = self::office(office.folder.path()).args(args).output().unwrap();
        assert!(!out.status.success());
        said(&out)
    };
    assert!(refused(&["serve", "library"]).contains("another `jukebox-office serve`"));
    assert!(refused(&["serve", "nowhere"]).contains("publish MUSIC_DIR LIBRARY_DIR"));
    let (https, mqtt) = (office.https.to_string(), office.mqtt.to_string());
    let other = ["serve", "library", "--state", "other", "--bind", "127.0.0.1"];
    assert!(refused(&[&other[..], &["--https", &https]].concat()).contains("choose another with --https"));
    let text = refused(&[&other[..], &["--https", "0", "--mqtt-port", &mqtt]].concat());
    assert!(text.contains("--mqtt-port"), "{text}");
    assert!(refused(&[&other[..], &["--https", "0", "--site", "HQ"]].concat()).contains("--site `HQ`"));
    assert!(refused(&[&other[..], &["--https", "0", "--broker", "office"]].concat()).contains("mqtts://HOST:PORT"));
    for secret in ["ca.key", "server.key", "bot.password", "office.password", "broker/dynamic-security.json"] {
        let mode = fs::metadata(office.path("state").join(secret)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{secret}");
    }
    assert_eq!(fs::metadata(office.path("state")).unwrap().permissions().mode() & 0o777, 0o700);
}
