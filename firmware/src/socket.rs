//! Unix socket for the command line: JSON lines, the objects of the MQTT contract plus `verb`.
//!
//! `{"verb":"volume","percent":35}` is the JSON form, `{"verb":"volume","say":"35"}` the one people type. Beside the verbs
//! of the contract: `status` (the sentence on the panel, and `now`), `panel` (the picture as text), `watch` (state and
//! events as they come, until the connection is closed). A line is answered before the next is read.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// Longest line, in bytes: the longest payload, its verb and some air.
const MAX_LINE: u64 = (jukebox_core::command::MAX_PAYLOAD + 1_024) as u64;
/// Connections at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 16;
/// Lines that a watcher may be behind; then it is cut off, so that it never holds the player up.
pub const WATCH_DEPTH: usize = 256;

/// An answer that takes longer will not come: the player answers within a second, on a slow card within a few.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What somebody at the socket wants of the driver.
#[derive(Debug)]
pub enum Ask {
    /// A verb of the contract.
    Command {
        /// The verb.
        verb: String,
        /// As it would be published.
        payload: Vec<u8>,
        /// For the reply.
        reply: oneshot::Sender<String>,
    },
    /// The sentence of the panel.
    Status(oneshot::Sender<String>),
    /// The panel's picture.
    Panel(oneshot::Sender<String>),
    /// State and events as they come; full or closed: forget it.
    Watch(mpsc::Sender<String>),
}

/// The socket's file; removed when this is dropped.
#[derive(Debug)]
pub struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another player answers there.
    #[error("{0}: another jukebox listens there; stop it, or set another [socket] path")]
    InUse(PathBuf),
    /// Something else lies there.
    #[error("{0}: that is no socket, and it is left alone; set another [socket] path")]
    Occupied(PathBuf),
    /// It cannot be made.
    #[error("{0}: {1}; set another [socket] path")]
    Path(PathBuf, io::Error),
}

/// Listens at `path` (mode 0660). Must be called within a runtime with a `LocalSet`.
pub fn listen(path: &Path, asks: mpsc::Sender<Ask>) -> Result<Socket, SocketError> {
    let fail = |e| SocketError::Path(path.into(), e);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(fail)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse(path.into()));
    }
    match std::fs::symlink_metadata(path) {
        // Left by a player that was killed.
        Ok(left) if left.file_type().is_socket() => std::fs::remove_file(path).map_err(fail)?,
        Ok(_) => return Err(SocketError::Occupied(path.into())),
        // Nothing there; whatever else is wrong, binding says.
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(fail)?;
    tokio::task::spawn_local(async move {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let Ok(place) = std::sync::Arc::clone(&places).try_acquire_owned() else { continue };
                    let asks = asks.clone();
                    tokio::task::spawn_local(async move {
                        // A caller that went away is no news.
                        let _ = serve(stream, asks).await;
                        drop(place);
                    });
                }
                Err(e) => {
                    tracing::warn!("socket: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(Socket(path.into()))
}

async fn serve(stream: UnixStream, asks: mpsc::Sender<Ask>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let n = (&mut read).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if n == 0 {
            return Ok(());
        }
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        let answer = match parse(&line) {
            Ok((verb, payload)) => {
                let (reply, answer) = oneshot::channel();
                let ask = match verb.as_str() {
                    "watch" => return watch(asks, write).await,
                    "status" => Ask::Status(reply),
                    "panel" => Ask::Panel(reply),
                    _ => Ask::Command { verb, payload, reply },
                };
                asks.send(ask).await.map_err(|_| closed())?;
                answer.await.map_err(|_| closed())?
            }
            Err(why) => {
                let refusal = serde_json::json!({"status": "refused", "code": "bad_payload", "reason": why});
                write.write_all(format!("{refusal}\n").as_bytes()).await?;
                // What is left of a line that is too long would be taken for a command.
                return Ok(());
            }
        };
        write.write_all(answer.as_bytes()).await?;
        write.write_all(b"\n").await?;
    }
}

async fn watch(asks: mpsc::Sender<Ask>, mut write: tokio::net::unix::OwnedWriteHalf) -> io::Result<()> {
    let (lines, mut come) = mpsc::channel::<String>(WATCH_DEPTH);
    asks.send(Ask::Watch(lines)).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    while let Some(line) = come.recv().await {
        write.write_all(line.as_bytes()).await?;
        write.write_all(b"\n").await?;
    }
    Ok(())
}

/// A line as verb and payload.
fn parse(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let mut map: Map<String, Value> =
        serde_json::from_slice(line).map_err(|e| format!("not a line of JSON of at most {MAX_LINE} bytes: {e}"))?;
    let Some(Value::String(verb)) = map.remove("verb") else { return Err("give the verb as text in `verb`".into()) };
    let payload = match map.remove("say") {
        Some(Value::String(said)) if map.is_empty() => said.into_bytes(),
        Some(_) => return Err("`say` is a text and stands alone beside `verb`".into()),
        None => Value::Object(map).to_string().into_bytes(),
    };
    Ok((verb, payload))
}

/// One question to a running player: the line of the answer, within 10 s.
pub fn ask(path: &Path, line: &str) -> io::Result<String> {
    ask_within(path, line, ANSWER_WITHIN)
}

fn ask_within(path: &Path, line: &str, patience: Duration) -> io::Result<String> {
    use std::io::{BufRead, Write};
    let late = |e: io::Error| match e.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "the player does not answer"),
        _ => e,
    };
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    writeln!(stream, "{line}").map_err(late)?;
    let mut answer = String::new();
    std::io::BufReader::new(stream).read_line(&mut answer).map_err(late)?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the player closed the connection"));
    }
    Ok(answer.trim_end().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_commands() {
        let ok = |l: &str| parse(l.as_bytes()).map(|(v, p)| (v, String::from_utf8(p).unwrap()));
        assert_eq!(ok(r#"{"verb":"skip","say":"7"}"#), Ok(("skip".into(), "7".into())));
        assert_eq!(ok(r#"{"verb":"volume","percent":35}"#), Ok(("volume".into(), r#"{"percent":35}"#.into())));
        assert_eq!(ok(r#"{"verb":"play"}"#), Ok(("play".into(), "{}".into())));
        for bad in ["", "{}", r#"{"verb":7}"#, r#"{"verb":"a","say":1}"#, r#"{"verb":"a","say":"b","c":1}"#] {
            assert!(ok(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        std::fs::write(&path, "dear").unwrap();
        let listen = |path: &Path| listen(path, mpsc::channel(1).0);
        let error = listen(&path).unwrap_err();
        assert!(matches!(error, SocketError::Occupied(_)) && error.to_string().contains("[socket] path"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"dear");
        // A socket that a killed player left is in nobody's way.
        let left = folder.path().join("left");
        drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
        let local = tokio::task::LocalSet::new();
        local.run_until(async { listen(&left).unwrap() }).await;
    }

    #[test]
    fn a_player_that_does_not_answer_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _deaf = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = ask_within(&path, "{}", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
