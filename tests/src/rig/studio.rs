//! A station of a few lines, for what Icecast does not send: one answer to everybody, at the pace of its music.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::run;

/// What a listener gets at once, as from Icecast.
const BURST_S: f64 = 3.0;
/// Between two parts.
const PART: Duration = Duration::from_millis(50);

/// On the air at this port of 127.0.0.1 until the process ends: the head of the answer as it stands, then the body, `seconds` long.
///
/// # Panics
/// When there is no port left.
pub fn on_air(head: &'static str, body: Vec<u8>, seconds: f64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("no port: {e}"));
    let port = listener.local_addr().map(|a| a.port()).unwrap_or_default();
    let body = Arc::new(body);
    std::thread::spawn(move || {
        for come in listener.incoming().map_while(Result::ok) {
            let body = body.clone();
            std::thread::spawn(move || send(come, head, &body, seconds));
        }
    });
    port
}

fn send(mut to: TcpStream, head: &str, body: &[u8], seconds: f64) {
    let mut request = [0; 1_024];
    let asked = to.read(&mut request).and_then(|_| to.write_all(head.as_bytes()));
    let (began, mut sent) = (Instant::now(), 0);
    while asked.is_ok() && sent < body.len() {
        let due = (began.elapsed().as_secs_f64() + BURST_S) / seconds;
        let end = ((due * body.len() as f64) as usize).min(body.len());
        // Whoever has heard enough hangs up.
        if to.write_all(&body[sent..end]).is_err() {
            return;
        }
        sent = end;
        std::thread::park_timeout(PART);
    }
}

/// A show: a tone in noise, `seconds` long, tagged, as ffmpeg makes a file of that ending.
///
/// # Panics
/// When ffmpeg is missing or fails.
pub fn show(file: &Path, hertz: u32, seconds: f64, title: &str, artist: &str) -> Vec<u8> {
    let codec = match file.extension().and_then(|e| e.to_str()) {
        Some("ogg") => "libvorbis",
        Some("opus") => "libopus",
        _ => "libmp3lame",
    };
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-y", "-f", "lavfi", "-i"]);
    ffmpeg.arg(format!(
        "sine=frequency={hertz}:sample_rate=48000:duration={seconds},volume=2[t];\
         anoisesrc=color=pink:amplitude=0.1:sample_rate=48000:duration={seconds}[n];[t][n]amix=normalize=0"
    ));
    ffmpeg.args(["-ac", "2", "-c:a", codec, "-b:a", "128k"]);
    ffmpeg.args(["-metadata", &format!("title={title}"), "-metadata", &format!("artist={artist}")]);
    if codec != "libmp3lame" {
        // Streams of Ogg that follow each other have numbers of their own.
        ffmpeg.args(["-serial_offset", &hertz.to_string()]);
    }
    run(ffmpeg.arg(file));
    std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The same music with titles between, every so many bytes: each at its place, in parts of the whole.
pub fn titled(music: &[u8], every: usize, titles: &[(f64, &str)]) -> Vec<u8> {
    let (mut all, mut said) = (Vec::new(), 0);
    for (n, part) in music.chunks(every).enumerate() {
        all.extend(part);
        if part.len() < every {
            break;
        }
        let here = (n + 1) as f64 * every as f64 / music.len() as f64;
        let now = titles.iter().filter(|t| t.0 <= here).count();
        let text = if now > said { format!("StreamTitle='{}';", titles[now - 1].1) } else { String::new() };
        said = now;
        let blocks = text.len().div_ceil(16);
        all.push(blocks as u8);
        all.extend(text.as_bytes());
        all.resize(all.len() + blocks * 16 - text.len(), 0);
    }
    all
}
