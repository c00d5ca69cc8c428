//! Commands as fast as the contract lets them come, over the broker, while music plays.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::{AsyncClient, MqttOptions, PublishOptions, Transport};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::house::{House, LONG};
use super::{Bench, Figure, quantile, spread};
use crate::rig::{SOON, mqtt::Account, until};

const A_SECOND: u32 = 20;
const REPLIES: &str = "jukebox/1/hq/reply/figures";

/// Twenty state-changing commands a second, each with an id of its own.
pub(super) fn flood(bench: &Bench) -> Vec<Figure> {
    let house = House::new(bench.music.long());
    if let Some(kind) = in_memory(&house.path("")) {
        return vec![Figure::not_here(
            "flood.answered",
            50.0,
            "ms",
            format!("the build lies on {kind}, without a real fsync"),
        )];
    }
    let player = house.player("outputs = [\"paced\"]\nperiod_ms = 20", "panel = \"none\"\nbuttons = \"none\"");
    let mut line = player.line();
    line.add_all(LONG);
    until("it plays", SOON, || (line.obeyed("now", "")["state"] == "playing").then_some(()));
    line.on_board();
    let online = house.broker.account("bot").listen(&["jukebox/1/hq/lobby/availability"]);
    online.wait("the player is online", |m| m.payload == "online");
    let before = (written(player.process.id()), line.obeyed("health", ""));
    let span = bench.span(Duration::from_secs(600), Duration::from_secs(30));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|e| panic!("no runtime: {e}"));
    let came = runtime.block_on(send(&house.broker.account("bot"), span));
    let sent = came.sent as f64;
    let health = line.obeyed("health", "");
    let more = |key: &str| health[key].as_f64().unwrap_or(f64::NAN) - before.1[key].as_f64().unwrap_or(f64::NAN);
    let silence = |h: &Value| h["unplanned_silence_s"]["since_boot"].as_f64().unwrap_or(f64::NAN);
    let bad = more("underruns") + more("xruns") + silence(&health) - silence(&before.1);
    let a_command = (written(player.process.id()) - before.0) as f64 / sent;
    let conditions = format!(
        "{} commands in {} s over mosquitto, TLS; {}; {:.0} bytes written a command, a sync of the disk {:.2} ms, {}",
        came.sent,
        span.as_secs(),
        spread(&came.took, "ms"),
        a_command,
        sync_ms(&house.path("sync")),
        bench.load()
    );
    vec![
        Figure::new("flood.answered", quantile(&came.took, 0.99), 50.0, "ms", format!("p99; {conditions}")),
        Figure::new("flood.unanswered", sent - came.took.len() as f64, 0.0, "", &conditions),
        Figure::new("flood.refused", came.refused as f64, 0.0, "", format!("{}; {conditions}", came.why)),
        Figure::new("flood.underruns", bad, 0.0, "", format!("underruns, xruns, silence; {conditions}")),
    ]
}

struct Came {
    sent: u32,
    took: Vec<f64>,
    refused: u32,
    /// The first refusal.
    why: String,
}

async fn send(bot: &Account, span: Duration) -> Came {
    let mut options = MqttOptions::new("figures", ("127.0.0.1", bot.port));
    options.set_credentials(&bot.user, bot.password.clone());
    options.set_transport(Transport::tls_with_config(trust(bot).into()));
    let (client, mut events) = AsyncClient::builder(options).build();
    let (tell, mut replies) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if let rumqttc::Event::Incoming(Packet::Publish(p)) = event {
                let _ = tell.send((Instant::now(), p.payload));
            }
        }
    });
    let subscribed = client.subscribe_tracked(REPLIES.to_owned(), QoS::AtLeastOnce).await;
    let subscribed = subscribed.unwrap_or_else(|e| panic!("subscribe: {e}"));
    subscribed.wait_completion_async().await.unwrap_or_else(|e| panic!("subscribe: {e}"));

    let total = span.as_secs() as u32 * A_SECOND;
    let (mut out, mut came) =
        (HashMap::new(), Came { sent: 0, took: Vec::new(), refused: 0, why: "none refused".into() });
    let take = |(seen, payload): (Instant, bytes::Bytes), out: &mut HashMap<String, Instant>, came: &mut Came| {
        let reply: Value = serde_json::from_slice(&payload).unwrap_or_else(|e| panic!("a reply: {e}"));
        let id = reply["id"].as_str().unwrap_or_default();
        let Some(sent) = out.remove(id) else { return };
        came.took.push((seen - sent).as_secs_f64() * 1_000.0);
        if reply["status"] != "ok" {
            if came.refused == 0 {
                came.why = format!("the first: {reply}");
            }
            came.refused += 1;
        }
    };
    let mut tick = tokio::time::interval(Duration::from_secs(1) / A_SECOND);
    while came.sent < total {
        tokio::select! {
            _ = tick.tick() => {
                let (verb, payload) = command(came.sent);
                let topic = format!("jukebox/1/hq/lobby/command/{verb}");
                let id = payload["id"].as_str().unwrap_or_default().to_owned();
                let properties = PublishProperties { response_topic: Some(REPLIES.into()), ..PublishProperties::default() };
                let how = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
                out.insert(id, Instant::now());
                client.publish(topic, payload.to_string(), how).await.unwrap_or_else(|e| panic!("publish: {e}"));
                came.sent += 1;
            }
            Some(reply) = replies.recv() => take(reply, &mut out, &mut came),
        }
    }
    while !out.is_empty() {
        let Ok(Some(reply)) = tokio::time::timeout(SOON, replies.recv()).await else { break };
        take(reply, &mut out, &mut came);
    }
    task.abort();
    came
}

/// The commands of a flood, in turn: volume up and down, mute on and off; each changes something.
fn command(n: u32) -> (&'static str, Value) {
    let id = format!("figures-{n:06}");
    match n % 4 {
        0 => ("volume", json!({"id": id, "percent": 40 + n / 4 % 2})),
        1 => ("mute", json!({"id": id, "on": true})),
        2 => ("volume", json!({"id": id, "by_percent": if (n / 4).is_multiple_of(2) { 5 } else { -5 }})),
        _ => ("mute", json!({"id": id, "on": false})),
    }
}

fn trust(bot: &Account) -> rustls::ClientConfig {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let file = bot.ca.clone().unwrap_or_default();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())) {
        let added = certificate.map_err(|e| e.to_string()).and_then(|c| roots.add(c).map_err(|e| e.to_string()));
        added.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
    let with =
        rustls::ClientConfig::builder_with_provider(jukebox::config::provider()).with_safe_default_protocol_versions();
    let with = with.unwrap_or_else(|e| panic!("TLS: {e}"));
    with.with_root_certificates(roots).with_no_client_auth()
}

/// Bytes that a process has caused to be written to a disk.
pub(super) fn written(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/io");
    let io = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let line = io.lines().find_map(|l| l.strip_prefix("write_bytes: "));
    line.and_then(|l| l.trim().parse().ok()).unwrap_or_else(|| panic!("{path}: no write_bytes"))
}

/// The kind of file system, if it lives in memory: a sync costs nothing there.
pub(super) fn in_memory(path: &std::path::Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    let path = path.canonicalize().ok()?;
    let mounted = mounts.lines().filter_map(|l| {
        let mut words = l.split(' ');
        Some((words.nth(1)?, words.next()?))
    });
    let kind = mounted.filter(|(at, _)| path.starts_with(at)).max_by_key(|(at, _)| at.len())?.1;
    ["tmpfs", "ramfs"].contains(&kind).then(|| kind.to_owned())
}

/// What a write of 4 KiB over an older one costs here with its sync, median of 20.
fn sync_ms(path: &std::path::Path) -> f64 {
    use std::os::unix::fs::FileExt;
    let fail = |e: std::io::Error| -> std::fs::File { panic!("{}: {e}", path.display()) };
    let file = std::fs::File::create(path).unwrap_or_else(fail);
    let took = (0..21).map(|n: u8| {
        let start = Instant::now();
        let wrote = file.write_all_at(&[n; 4_096], 0).and_then(|()| file.sync_data());
        wrote.unwrap_or_else(|e| drop(fail(e)));
        start.elapsed().as_secs_f64() * 1_000.0
    });
    // The first makes the file longer.
    quantile(&took.skip(1).collect::<Vec<_>>(), 0.5)
}
