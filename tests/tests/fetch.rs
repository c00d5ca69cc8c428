//! Downloads from a real nginx, from a folder, and from servers that misbehave in every way that was thought of.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use jukebox::dial::Dialer;
use jukebox::fetch::{Fault, Fetcher, Meter, OriginError, OriginState, RootAnswer, Sample, TlsFault, Want};
use jukebox::store::{Limits, ObjectError, Objects, Store};
use jukebox_core::library::Digest;
use jukebox_core::planner::Keep;
use rustls::pki_types::CertificateDer;

const DEADLINE: Duration = Duration::from_secs(20);
/// For requests that are meant to run into it.
const SHORT: Duration = Duration::from_millis(300);

/// A player's disk and a library's folder.
struct Disk {
    dir: tempfile::TempDir,
    _store: Store,
    objects: Objects,
}

impl Disk {
    fn new() -> Self {
        Self::with(Limits { cap_bytes: 1 << 30, floor_bytes: 0 })
    }

    fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&dir.path().join("state"), &dir.path().join("cache"), limits, drop).unwrap();
        fs::create_dir(dir.path().join("library")).unwrap();
        fs::write(dir.path().join("library/library.json"), "{}").unwrap();
        let objects = store.objects();
        Self { dir, _store: store, objects }
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("library")
    }

    /// Stores an object of the library.
    fn object(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = self.library().join(digest.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        digest
    }

    fn fetcher(&self, origins: &[&str], tls: Option<&rustls::ClientConfig>) -> (Fetcher, Arc<Mutex<Vec<Sample>>>) {
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let (seen, origins) = (samples.clone(), origins.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>());
        let sample = move |s| seen.lock().unwrap().push(s);
        (Fetcher::new(&origins, Dialer::new(None), tls, true, self.objects.clone(), sample).unwrap(), samples)
    }
}

/// Some bytes that differ by `seed`.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) ^ (i >> 8) as u8).collect()
}

fn part(object: Digest, bytes: &[u8], range: std::ops::Range<usize>) -> Want {
    let digest = Digest::of(&bytes[range.clone()]);
    Want {
        object,
        range: Some(range.start as u64..range.end as u64),
        digest,
        deadline: DEADLINE,
        keep: Keep::default(),
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A child process that is ended, whatever happens.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: i32) {
        let name = if signal == libc::SIGSTOP { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A CA's certificate, and nginx serving `library` over https with a certificate of that CA.
fn nginx(dir: &Path, library: &Path) -> (Daemon, String, rustls::ClientConfig) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(ca, key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = rcgen::CertificateParams::new(names).unwrap().signed_by(&server_key, &issuer).unwrap();
    fs::write(dir.join("server.pem"), server.pem()).unwrap();
    fs::write(dir.join("server.key"), server_key.serialize_pem()).unwrap();
    let port = free_port();
    let (d, l) = (dir.display(), library.display());
    let user = if is_root() { "user root;" } else { "" };
    let config = format!(
        "{user} daemon off; master_process off; worker_processes 1; pid {d}/pid; error_log {d}/error.log; events {{}}
         http {{ access_log {d}/access.log; client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f;
         uwsgi_temp_path {d}/u; scgi_temp_path {d}/s; default_type application/octet-stream;
         server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {d}/server.pem; ssl_certificate_key {d}/server.key;
         location /lib/ {{ alias {l}/; }} }} }}"
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let child = Command::new("nginx")
        .args(["-e", "stderr", "-p"])
        .arg(dir)
        .arg("-c")
        .arg(dir.join("nginx.conf"))
        .stdin(Stdio::null())
        .spawn()
        .expect("nginx is installed");
    let daemon = Daemon(child);
    wait_until("nginx listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    (daemon, format!("https://localhost:{port}/lib/"), trusting(ca_cert.der()))
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|l| l.starts_with("Uid:\t0\t"))
}

fn trusting(ca: &CertificateDer<'_>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.clone().into_owned()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn nginx_serves_ranges_over_http_2() {
    let disk = Disk::new();
    let rendition = noise(1, 300_000);
    let object = disk.object(&rendition);
    let record = disk.object(b"a record");
    let web = tempfile::tempdir().unwrap();
    let (server, url, tls) = nginx(web.path(), &disk.library());
    let (fetcher, samples) = disk.fetcher(&[&url], Some(&tls));

    let wants = [0..1000, 1000..150_000, 150_000..300_000].map(|r| (r.clone(), part(object, &rendition, r)));
    for (range, want) in &wants {
        let fetched = fetcher.fetch(want.clone()).await.unwrap();
        assert_eq!((&fetched.bytes[..], fetched.origin), (&rendition[range.clone()], Some(0)));
        assert!(disk.objects.has(&want.digest));
    }
    // A range that is the whole, and the whole without a range.
    disk.objects.remove(&object);
    assert_eq!(fetcher.fetch(part(object, &rendition, 0..300_000)).await.unwrap().bytes, rendition);
    assert_eq!(fetcher.fetch(Want::whole(record, DEADLINE)).await.unwrap().bytes, "a record");
    // From the disk: nothing is asked.
    let before = samples.lock().unwrap().len();
    assert_eq!(fetcher.fetch(wants[1].1.clone()).await.unwrap().origin, None);
    assert_eq!(samples.lock().unwrap().len(), before);
    // Past the end, and nothing there.
    let beyond = Want { range: Some(299_000..301_000), ..part(object, &rendition, 0..1) };
    assert_eq!(fetcher.fetch(Want { digest: Digest::of(b"?"), ..beyond }).await, Err(Fault::WrongRange));
    assert_eq!(fetcher.fetch(Want::whole(Digest::of(b"never"), DEADLINE)).await, Err(Fault::NotFound));

    // The root with its tag.
    let RootAnswer::Changed { bytes, etag } = fetcher.root(None, DEADLINE).await.unwrap() else { panic!() };
    assert_eq!(&bytes[..], b"{}");
    assert_eq!(fetcher.root(etag.as_deref(), DEADLINE).await, Ok(RootAnswer::Unchanged));
    fs::write(disk.library().join("library.json"), "{\"new\":1}").unwrap();
    assert!(
        matches!(fetcher.root(etag.as_deref(), DEADLINE).await, Ok(RootAnswer::Changed { bytes, .. }) if bytes.len() == 9)
    );

    let log = fs::read_to_string(web.path().join("access.log")).unwrap();
    assert!(!log.is_empty() && log.lines().all(|l| l.contains("HTTP/2.0")), "{log}");
    let first = samples.lock().unwrap()[0].clone();
    assert!(first.bytes == 1000 && first.fault.is_none() && first.first_byte.unwrap() <= first.duration);
    assert!(fetcher.office_date().unwrap().0.ends_with("GMT"));
    assert_eq!(fetcher.probe(DEADLINE).await, Ok(()));

    // Frozen, thawed, killed.
    server.signal(libc::SIGSTOP);
    let late = Want { deadline: SHORT, ..part(object, &rendition, 5..500) };
    assert_eq!(fetcher.fetch(late.clone()).await, Err(Fault::Timeout));
    assert_eq!(fetcher.origins()[0].state, OriginState::Slow);
    server.signal(libc::SIGCONT);
    assert_eq!(fetcher.fetch(Want { deadline: DEADLINE, ..late }).await.unwrap().bytes, rendition[5..500]);
    assert_eq!(fetcher.origins()[0].state, OriginState::Ok);
    drop(server);
    fetcher.renew();
    assert_eq!(fetcher.fetch(part(object, &rendition, 7..70)).await, Err(Fault::Refused));
    assert_eq!(fetcher.probe(DEADLINE).await, Err(Fault::Refused));
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused() {
    let disk = Disk::new();
    let object = disk.object(b"x");
    let [web, other] = [0; 2].map(|_| tempfile::tempdir().unwrap());
    let (_server, url, tls) = nginx(web.path(), &disk.library());
    let (_other, _, wrong) = nginx(other.path(), &disk.library());
    let (fetcher, _) = disk.fetcher(&[&url], Some(&wrong));
    let fault = fetcher.fetch(Want::whole(object, DEADLINE)).await.unwrap_err();
    assert_eq!(fault, Fault::Tls(TlsFault::Issuer));
    assert!(fault.is_link() && fetcher.office_date().is_none());
    // The right CA, but the server is called by a name that it has no certificate for.
    let (fetcher, _) = disk.fetcher(&[&url.replace("localhost", "127.0.0.2")], Some(&tls));
    let fault = fetcher.fetch(Want::whole(object, DEADLINE)).await.unwrap_err();
    assert!(matches!(fault, Fault::Refused | Fault::Tls(TlsFault::Name)), "{fault}");
}

/// What a server that misbehaves does with a connection whose request was read.
type Trick = Arc<dyn Fn(&str, &mut TcpStream) + Send + Sync>;

struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Server {
    /// Serves connections, each in a thread of its own, until the test's process ends.
    fn start(trick: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let (trick, listener): (Trick, _) = (Arc::new(trick), TcpListener::bind("127.0.0.1:0").unwrap());
        let (address, asked) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (trick, count, mut stream) = (trick.clone(), count.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    let head: Vec<_> = lines.by_ref().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
                    if !head.is_empty() {
                        count.fetch_add(1, Ordering::SeqCst);
                        trick(&head.join("\n"), &mut stream);
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn saying(answer: &'static str) -> Self {
        Self::start(move |_, s| drop(s.write_all(answer.as_bytes())))
    }

    /// An honest server of a folder, ranges included, one request for each connection.
    fn honest(library: PathBuf) -> Self {
        Self::start(move |head, s| serve(&library, head, s))
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn serve(library: &Path, head: &str, s: &mut TcpStream) {
    serve_to(library, head, s);
}

fn serve_to(library: &Path, head: &str, s: &mut impl Write) {
    let path = head.split(' ').nth(1).unwrap().trim_start_matches('/');
    let Ok(bytes) = fs::read(library.join(path)) else {
        return drop(s.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    };
    let range = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let (status, body) = match range {
        None => ("200 OK".to_owned(), &bytes[..]),
        Some(r) => {
            let (a, b) = r.split_once('-').unwrap();
            let (a, b) = (a.parse::<usize>().unwrap(), b.parse::<usize>().unwrap());
            (format!("206 Partial Content\r\nContent-Range: bytes {a}-{b}/{}", bytes.len()), &bytes[a..=b])
        }
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = s.write_all(head.as_bytes()).and_then(|()| s.write_all(body));
}

/// Waits for the other side to hang up.
fn hold(s: &mut TcpStream) {
    let _ = s.read(&mut [0]);
}

#[tokio::test]
async fn misbehaving_servers_are_told_apart_and_never_blame_the_track() {
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 12\r\n\r\n<html></html";
    let ranged = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/9\r\nContent-Length: 5\r\n\r\nwrong";
    let tricks: Vec<(Server, Fault)> = vec![
        (Server::saying(html), Fault::Portal),
        (Server::saying("HTTP/1.1 302 Found\r\nLocation: http://login/\r\nContent-Length: 0\r\n\r\n"), Fault::Redirect),
        (
            Server::saying("HTTP/1.1 511 Network Authentication Required\r\nContent-Length: 0\r\n\r\n"),
            Fault::Status(511),
        ),
        (Server::saying("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), Fault::Status(503)),
        (Server::saying("HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n"), Fault::Status(401)),
        (Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall of it"), Fault::WrongRange),
        (Server::saying(&ranged.replace("0-4", "1-5").leak()[..]), Fault::WrongRange),
        (Server::saying(&ranged.replace("bytes 0-4/9", "pages").leak()[..]), Fault::WrongRange),
        (Server::saying(&ranged.replace("Length: 5", "Length: 6").leak()[..]), Fault::WrongLength),
        (Server::saying(ranged), Fault::WrongDigest { others_verify: false }),
        (Server::saying(&ranged.replace("wrong", "wro").leak()[..]), Fault::Reset),
        (Server::saying("SSH-2.0-OpenSSH_9.2\r\n"), Fault::Protocol),
        (Server::start(|_, _| ()), Fault::Reset),
        (Server::start(|_, s| hold(s)), Fault::Timeout),
        (
            Server::start(move |_, s| {
                // Slow loris: a byte, and nothing more.
                let _ = s.write_all(&ranged.as_bytes()[..ranged.len() - 4]);
                hold(s);
            }),
            Fault::Timeout,
        ),
        (
            Server::start(|_, s| {
                // Without end, if nobody stops it.
                let head =
                    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/9\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _ = s.write_all(head.as_bytes());
                while s.write_all(b"400\r\n").and_then(|()| s.write_all(&[b'x'; 1026])).is_ok() {}
            }),
            Fault::WrongLength,
        ),
    ];
    for (server, expected) in tricks {
        let disk = Disk::new();
        let (fetcher, samples) = disk.fetcher(&[&server.url()], None);
        let deadline = if expected == Fault::Timeout { SHORT } else { DEADLINE };
        let object = Digest::of(b"right, all of it");
        let want = Want { object, range: Some(0..5), digest: Digest::of(b"right"), deadline, keep: Keep::default() };
        let fault = fetcher.fetch(want.clone()).await.unwrap_err();
        assert_eq!(fault, expected);
        assert!(fault.is_link() && !disk.objects.has(&want.digest));
        assert_ne!(fetcher.origins()[0].state, OriginState::Ok);
        // Wrong bytes are a transfer like any other: the estimate of the link counts them.
        let transfer = Some(expected).filter(|f| !matches!(f, Fault::WrongDigest { .. }));
        assert_eq!(samples.lock().unwrap()[0].fault, transfer);
    }
    let disk = Disk::new();
    for (url, fault) in
        [(format!("http://127.0.0.1:{}", free_port()), Fault::Refused), ("http://no.invalid".into(), Fault::Dns)]
    {
        let (fetcher, _) = disk.fetcher(&[&url], None);
        assert_eq!(fetcher.fetch(Want::whole(Digest::of(b"x"), DEADLINE)).await, Err(fault));
        assert_eq!(fetcher.probe(DEADLINE).await, Err(fault));
    }
}

#[tokio::test]
async fn an_endless_object_and_an_empty_range_end() {
    let server = Server::start(|_, s| {
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while s.write_all(&[b'x'; 65536]).is_ok() {}
    });
    let disk = Disk::new();
    let (fetcher, samples) = disk.fetcher(&[&server.url()], None);
    assert_eq!(fetcher.fetch(Want::whole(Digest::of(b"x"), DEADLINE)).await, Err(Fault::WrongLength));
    assert!(samples.lock().unwrap()[0].bytes < 5 << 20);
    let empty = Want { range: Some(5..5), ..Want::whole(Digest::of(b"x"), DEADLINE) };
    assert_eq!(fetcher.fetch(empty).await, Err(Fault::WrongLength));
}

#[tokio::test]
async fn the_next_origin_helps_and_the_bad_one_comes_last() {
    let disk = Disk::new();
    let objects: Vec<_> = (0..20).map(|n| disk.object(&noise(n, 100))).collect();
    let bad = Server::saying("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let good = Server::honest(disk.library());
    let (fetcher, _) = disk.fetcher(&[&bad.url(), &good.url()], None);
    for object in &objects {
        assert_eq!(fetcher.fetch(Want::whole(*object, DEADLINE)).await.unwrap().origin, Some(1));
    }
    let asked = bad.asked();
    assert!((1..5).contains(&asked), "an origin that failed a moment ago is not asked again: {asked}");
    let health = fetcher.origins();
    assert_eq!([health[0].state, health[1].state], [OriginState::Failing, OriginState::Ok]);
    assert!(health[0].avoid.is_some() && health[1].avoid.is_none());
    // Missing at the good one: the bad one may have it, so there is hope.
    assert_eq!(fetcher.fetch(Want::whole(Digest::of(b"?"), DEADLINE)).await, Err(Fault::Status(503)));
    fetcher.renew();
    assert!(fetcher.origins()[0].avoid.is_none(), "after the link came back everybody gets a chance");
}

#[tokio::test]
async fn segments_are_spread_and_the_slow_one_is_avoided() {
    let disk = Disk::new();
    let bytes = noise(1, 40 * 40_000);
    let object = disk.object(&bytes);
    let [a, b] = [0; 2].map(|_| Server::honest(disk.library()));
    let library = disk.library();
    let slow = Arc::new(AtomicUsize::new(0));
    let throttle = slow.clone();
    let c = Server::start(move |head, s| {
        if throttle.load(Ordering::SeqCst) == 0 {
            return serve(&library, head, s);
        }
        // Half a second for 40 kB: slow, but not standing.
        let mut whole = Vec::new();
        serve_to(&library, head, &mut whole);
        for part in whole.chunks(4_000) {
            let _ = s.write_all(part);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let (fetcher, _) = disk.fetcher(&[&a.url(), &b.url(), &c.url()], None);
    let mut counts = [0; 3];
    for n in 0..30 {
        let fetched = fetcher.fetch(part(object, &bytes, n * 40_000..(n + 1) * 40_000)).await.unwrap();
        counts[fetched.origin.unwrap()] += 1;
    }
    assert!(counts.iter().all(|c| *c >= 3), "spread: {counts:?}");
    slow.store(1, Ordering::SeqCst);
    let before = c.asked();
    for n in 30..40 {
        fetcher.fetch(part(object, &bytes, n * 40_000..(n + 1) * 40_000)).await.unwrap();
    }
    let asked = c.asked() - before;
    assert!(asked <= 2, "asked {asked} times although it is slow");
    assert!(asked == 0 || fetcher.origins()[2].state == OriginState::Slow);
}

/// Serves the head and the first half of what is asked, then stands still or hangs up.
fn half(library: &Path, head: &str, s: &mut TcpStream) {
    let mut whole = Vec::new();
    serve_to(library, head, &mut whole);
    let _ = s.write_all(&whole[..whole.len() / 2]);
}

#[tokio::test]
async fn what_stands_still_is_gone_on_with_elsewhere() {
    let disk = Disk::new();
    let bytes = noise(1, 200_000);
    let object = disk.object(&bytes);
    let library = disk.library();
    let stuck = Server::start(move |head, s| {
        half(&library, head, s);
        hold(s);
    });
    let (library, (heads, asked)) = (disk.library(), mpsc::channel());
    let good = Server::start(move |head, s| {
        heads.send(head.to_ascii_lowercase()).unwrap();
        serve(&library, head, s);
    });
    let (fetcher, _) = disk.fetcher(&[&stuck.url(), &good.url()], None);
    // Each want has an order of its own: take one that begins at the stuck origin.
    for n in 0..20 {
        let want = part(object, &bytes, n..150_000 + n);
        let (start, end, meter) = (n, 150_000 + n, Meter::default());
        let before = stuck.asked();
        let fetched = fetcher.fetch_counted(want, &meter).await.unwrap();
        assert_eq!((&fetched.bytes[..], fetched.origin), (&bytes[start..end], Some(1)));
        assert_eq!(meter.bytes(), 150_000, "nothing comes twice");
        let head = asked.recv_timeout(DEADLINE).unwrap();
        if stuck.asked() > before {
            assert!(!head.contains(&format!("bytes={start}-")), "it goes on behind the first half: {head}");
            assert_eq!(fetcher.origins()[0].state, OriginState::Slow);
            return;
        }
    }
    panic!("the stuck origin was never the first");
}

#[tokio::test]
async fn a_connection_that_stands_still_is_replaced() {
    let disk = Disk::new();
    let bytes = noise(1, 50_000);
    let object = disk.object(&bytes);
    let (library, first) = (disk.library(), AtomicUsize::new(0));
    let server =
        Server::start(
            move |head, s| {
                if first.fetch_add(1, Ordering::SeqCst) == 0 { hold(s) } else { serve(&library, head, s) }
            },
        );
    let (fetcher, _) = disk.fetcher(&[&server.url()], None);
    let fetched = fetcher.fetch(part(object, &bytes, 0..50_000)).await.unwrap();
    assert!(fetched.bytes == bytes && server.asked() == 2);
}

#[tokio::test]
async fn what_came_before_the_link_broke_is_not_paid_for_twice() {
    let disk = Disk::new();
    let bytes = noise(1, 100_000);
    let object = disk.object(&bytes);
    let (library, (heads, asked), turn) = (disk.library(), mpsc::channel(), AtomicUsize::new(0));
    let wrong = noise(9, 100_000);
    let server = Server::start(move |head, s| {
        heads.send(head.to_ascii_lowercase()).unwrap();
        match turn.fetch_add(1, Ordering::SeqCst) {
            0..=2 => half(&library, head, s),
            // A liar, half of it: its part spoils what is made with it, once.
            4 => {
                let answer = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-90099/100000\r\n\
                              Content-Length: 90000\r\nConnection: close\r\n\r\n";
                let _ = s.write_all(answer.as_bytes()).and_then(|()| s.write_all(&wrong[..30_000]));
            }
            _ => serve(&library, head, s),
        }
    });
    let (fetcher, _) = disk.fetcher(&[&server.url()], None);
    let (want, meter) = (part(object, &bytes, 0..100_000), Meter::default());
    assert_eq!(fetcher.fetch_counted(want.clone(), &meter).await, Err(Fault::Reset));
    assert_eq!(meter.bytes(), 0, "what is kept is not lost");
    assert!(meter.came() > 0, "and it did come");
    let fetched = fetcher.fetch_counted(want, &meter).await.unwrap();
    assert!(fetched.bytes == bytes && fetched.came < 30_000);
    assert_eq!(meter.bytes(), 100_000);
    let heads: Vec<_> = (0..4).map(|_| asked.recv_timeout(DEADLINE).unwrap()).collect();
    assert!(heads[0].contains("bytes=0-99999"));
    assert!(heads[1..].iter().all(|h| h.contains("-99999") && !h.contains("bytes=0-")), "{heads:?}");

    let (want, meter) = (part(object, &bytes, 100..90_100), Meter::default());
    assert_eq!(fetcher.fetch_counted(want, &meter).await.unwrap().bytes, bytes[100..90_100]);
    assert_eq!(meter.bytes(), 30_000 + 60_000 + 90_000, "wrong bytes are paid for");
}

#[tokio::test]
async fn one_liar_costs_nothing_but_its_bytes() {
    let disk = Disk::new();
    let honest = Server::honest(disk.library());
    let liar = Server::start(|head, s| {
        let what = if head.contains("library.json") { "{}" } else { "lie" };
        let _ = write!(s, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{what}", what.len());
    });
    let (fetcher, _) = disk.fetcher(&[&liar.url(), &honest.url()], None);
    let meter = Meter::default();
    for n in 0..20 {
        let object = disk.object(&noise(n, 100));
        assert_eq!(fetcher.fetch_counted(Want::whole(object, DEADLINE), &meter).await.unwrap().origin, Some(1));
    }
    assert_eq!(
        (fetcher.origins()[0].state, liar.asked()),
        (OriginState::Lying, 1),
        "asked once, and then for long not"
    );
    assert_eq!(meter.bytes(), 20 * 100 + 3);
}

#[tokio::test]
async fn damage_in_the_library_is_told_from_a_lying_way() {
    let disk = Disk::new();
    let good = disk.object(&noise(1, 100));
    let damaged = disk.object(&noise(2, 100));
    fs::write(disk.library().join(damaged.path()), noise(3, 100)).unwrap();
    let server = Server::honest(disk.library());
    let (fetcher, _) = disk.fetcher(&[&server.url()], None);
    let want = Want::whole(damaged, DEADLINE);
    let fault = fetcher.fetch(want.clone()).await.unwrap_err();
    assert!(fault == Fault::WrongDigest { others_verify: false } && fault.is_link(), "nothing was ever right: wait");
    fetcher.fetch(Want::whole(good, DEADLINE)).await.unwrap();
    let fault = fetcher.fetch(want.clone()).await.unwrap_err();
    assert!(fault == Fault::WrongDigest { others_verify: true } && fault.is_track());
    // From now on everything is wrong: that is the way, not the track.
    fs::write(disk.library().join(good.path()), noise(4, 100)).unwrap();
    assert!(fetcher.fetch(want).await.unwrap_err().is_link());
    assert_eq!(fetcher.origins()[0].state, OriginState::Lying);
}

#[tokio::test]
async fn whoever_answers_404_to_everything_blames_no_track() {
    let disk = Disk::new();
    let gone = Want::whole(Digest::of(b"gone"), DEADLINE);
    let server = Server::honest(disk.library());
    let (fetcher, _) = disk.fetcher(&[&server.url()], None);
    assert_eq!(fetcher.fetch(gone.clone()).await, Err(Fault::NotFound), "the root is there: the track is not");
    assert_eq!(fetcher.origins()[0].state, OriginState::Ok);
    // The web root is emptied, or was never the right one, or a login page stands before it.
    fs::remove_file(disk.library().join("library.json")).unwrap();
    let fault = fetcher.fetch(gone).await.unwrap_err();
    assert!(fault == Fault::Status(404) && fault.is_link());
    assert_eq!(fetcher.origins()[0].state, OriginState::Failing);
}

#[tokio::test]
async fn a_folder_is_an_origin() {
    let disk = Disk::new();
    let bytes = noise(1, 5000);
    let object = disk.object(&bytes);
    let (fetcher, samples) = disk.fetcher(&[disk.library().to_str().unwrap()], None);
    assert_eq!(fetcher.fetch(part(object, &bytes, 100..4000)).await.unwrap().bytes, bytes[100..4000]);
    assert_eq!(fetcher.fetch(Want::whole(object, DEADLINE)).await.unwrap().bytes, bytes);
    assert_eq!(samples.lock().unwrap().iter().map(|s| s.bytes).collect::<Vec<_>>(), [3900, 5000]);
    let beyond = Want { range: Some(4000..6000), digest: Digest::of(b"?"), ..Want::whole(object, DEADLINE) };
    assert_eq!(fetcher.fetch(beyond).await, Err(Fault::WrongRange));
    assert_eq!(fetcher.fetch(Want::whole(Digest::of(b"?"), DEADLINE)).await, Err(Fault::NotFound));
    assert!(matches!(fetcher.root(None, DEADLINE).await, Ok(RootAnswer::Changed { .. })));
    assert_eq!(fetcher.probe(DEADLINE).await, Ok(()));
    // Not mounted: everything is missing, and that is not the track's fault.
    fs::rename(disk.library(), disk.dir.path().join("away")).unwrap();
    let fault = fetcher.fetch(Want::whole(Digest::of(b"?"), DEADLINE)).await.unwrap_err();
    assert!(fault == Fault::NotMounted && fault.is_link());
    assert_eq!(fetcher.probe(DEADLINE).await, Err(Fault::NotMounted));
}

#[tokio::test]
async fn a_dead_mount_freezes_nobody() {
    // A pipe that nobody writes to: opening it blocks in the kernel, like a file on a dead mount.
    let disk = Disk::new();
    let dead = Digest::of(b"dead");
    let path = disk.library().join(dead.path());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let other = disk.object(b"fine");
    let good = Server::honest(disk.library());
    let (fetcher, _) = disk.fetcher(&[disk.library().to_str().unwrap(), &good.url()], None);
    let (stuck, _) = disk.fetcher(&[disk.library().to_str().unwrap()], None);
    assert_eq!(stuck.fetch(Want::whole(dead, SHORT)).await, Err(Fault::Timeout));
    assert_eq!(stuck.fetch(Want::whole(other, SHORT)).await, Err(Fault::Timeout));
    assert_eq!(fetcher.fetch(Want::whole(other, DEADLINE)).await.unwrap().bytes, "fine");
    // Let the thread go.
    drop(fs::OpenOptions::new().write(true).open(&path).unwrap());
}

/// A server whose answers wait until they are released.
struct Gated {
    server: Server,
    arrivals: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
    /// Most requests that waited at once.
    most: Arc<AtomicUsize>,
}

fn gated(disk: &Disk) -> Gated {
    let (library, (arrived, arrivals)) = (disk.library(), mpsc::channel());
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let peak = most.clone();
    let server = Server::start(move |head, s| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        arrived.send(()).unwrap();
        let _ = gate.lock().unwrap().recv();
        now.fetch_sub(1, Ordering::SeqCst);
        serve(&library, head, s);
    });
    Gated { server, arrivals, release, most }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn equal_wants_share_a_download_and_at_most_two_large_segments_are_on_the_way() {
    let disk = Disk::new();
    let bytes = noise(1, 600_000);
    let object = disk.object(&bytes);
    let Gated { server, arrivals, release, most } = gated(&disk);
    let (fetcher, _) = disk.fetcher(&[&server.url()], None);
    let fetch = |n: usize| {
        let (fetcher, want) = (fetcher.clone(), part(object, &bytes, n * 100_000..(n + 1) * 100_000));
        tokio::spawn(async move { fetcher.fetch(want).await })
    };
    let segments: Vec<_> = (0..5).map(fetch).collect();
    let again: Vec<_> = (0..5).map(fetch).collect();
    for _ in 0..2 {
        arrivals.recv_timeout(DEADLINE).unwrap();
    }
    for _ in 2..5 {
        release.send(()).unwrap();
        arrivals.recv_timeout(DEADLINE).unwrap();
    }
    (0..2).for_each(|_| release.send(()).unwrap());
    let mut seen = HashSet::new();
    for task in segments.into_iter().chain(again) {
        seen.insert(task.await.unwrap().unwrap().bytes);
    }
    assert_eq!((seen.len(), server.asked(), most.load(Ordering::SeqCst)), (5, 5, 2));

    // Whoever leads gives up: whoever waits takes over.
    let (leader, follower) = (fetch(5), fetch(5));
    arrivals.recv_timeout(DEADLINE).unwrap();
    leader.abort();
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(follower.await.unwrap().unwrap().bytes, bytes[500_000..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn eight_small_segments_are_on_the_way_at_once() {
    let disk = Disk::new();
    let bytes = noise(1, 90_000);
    let object = disk.object(&bytes);
    let Gated { server, arrivals, release, most } = gated(&disk);
    let (fetcher, _) = disk.fetcher(&[&server.url()], None);
    let fetch = |n: usize| {
        let (fetcher, want) = (fetcher.clone(), part(object, &bytes, n * 10_000..(n + 1) * 10_000));
        tokio::spawn(async move { fetcher.fetch(want).await })
    };
    let segments: Vec<_> = (0..9).map(fetch).collect();
    (0..8).for_each(|_| arrivals.recv_timeout(DEADLINE).unwrap());
    (0..9).for_each(|_| release.send(()).unwrap());
    for task in segments {
        task.await.unwrap().unwrap();
    }
    assert_eq!((server.asked(), most.load(Ordering::SeqCst)), (9, 8));
}

#[tokio::test]
async fn a_full_card_is_said_and_a_torn_file_is_fetched_again() {
    let full = Disk::with(Limits { cap_bytes: 8192, floor_bytes: 0 });
    let bytes = noise(1, 9000);
    let object = full.object(&bytes);
    let (fetcher, samples) = full.fetcher(&[full.library().to_str().unwrap()], None);
    for _ in 0..3 {
        let fault = fetcher.fetch(part(object, &bytes, 0..9000)).await.unwrap_err();
        assert!(fault == Fault::Store(ObjectError::Full) && !fault.is_link() && !fault.is_track());
    }
    assert_eq!(samples.lock().unwrap().len(), 0, "what the card will not take is not downloaded");
    let fetched = fetcher.fetch(part(object, &bytes, 0..8000)).await.unwrap();
    assert_eq!((fetched.bytes.len(), fetched.origin), (8000, Some(0)));
    assert!(fetched.took > Duration::ZERO);

    let disk = Disk::new();
    let object = disk.object(b"whole");
    let (fetcher, _) = disk.fetcher(&[disk.library().to_str().unwrap()], None);
    disk.objects.put(&object, b"tor", Keep::default()).unwrap();
    let fetched = fetcher.fetch(Want::whole(object, DEADLINE)).await.unwrap();
    assert_eq!((&fetched.bytes[..], fetched.origin), (&b"whole"[..], Some(0)));
    assert_eq!(disk.objects.read(&object).unwrap(), b"whole");
}

#[test]
fn a_plain_connection_must_be_allowed() {
    let disk = Disk::new();
    let plain = Fetcher::new(&["http://a".into()], Dialer::new(None), None, false, disk.objects.clone(), drop);
    assert!(matches!(plain, Err(OriginError::Insecure(_))));
}
