//! How a station greets: SHOUTcast's servers of the first kind say `ICY 200 OK` where others say `HTTP/1.0 200 OK`; what
//! follows is HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

/// What they say, and what it means.
const ICY: [u8; 4] = *b"ICY ";
const HTTP: &[u8] = b"HTTP/1.0 ";

/// A connection on which every greeting is HTTP's.
pub(super) struct Greeting<T> {
    stream: T,
    first: First,
}

/// The first bytes that come.
enum First {
    /// So many of them have come.
    Comes([u8; ICY.len()], usize),
    /// What they mean, as far as it was not read yet.
    Means(Bytes),
}

impl<T> Greeting<T> {
    pub(super) fn of(stream: T) -> Self {
        Self { stream, first: First::Comes([0; ICY.len()], 0) }
    }
}

impl<T: Read + Unpin> Read for Greeting<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let Self { stream, first } = self.get_mut();
        loop {
            match first {
                First::Comes(bytes, come) => {
                    let mut room = ReadBuf::new(&mut bytes[*come..]);
                    ready!(Pin::new(&mut *stream).poll_read(cx, room.unfilled()))?;
                    let more = room.filled().len();
                    *come += more;
                    // Less than that: it has ended.
                    if *bytes == ICY {
                        *first = First::Means(Bytes::from_static(HTTP));
                    } else if *come == ICY.len() || more == 0 {
                        *first = First::Means(Bytes::copy_from_slice(&bytes[..*come]));
                    }
                }
                First::Means(bytes) if bytes.is_empty() => return Pin::new(stream).poll_read(cx, to),
                First::Means(bytes) => {
                    to.put_slice(&bytes.split_to(bytes.len().min(to.remaining())));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<T: Write + Unpin> Write for Greeting<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Bytes that come in parts.
    struct Parts(Vec<Bytes>);

    impl Read for Parts {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
            let Self(parts) = self.get_mut();
            if let Some(part) = parts.first_mut() {
                to.put_slice(&part.split_to(part.len().min(to.remaining())));
            }
            parts.retain(|p| !p.is_empty());
            Poll::Ready(Ok(()))
        }
    }

    fn read(said: &[u8], part: usize, room: usize) -> Vec<u8> {
        let mut greeting = Greeting::of(Parts(said.chunks(part).map(Bytes::copy_from_slice).collect()));
        let mut all = Vec::new();
        loop {
            let mut bytes = vec![0; room];
            let mut to = ReadBuf::new(&mut bytes);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut greeting).poll_read(&mut cx, to.unfilled()).is_ready());
            if to.filled().is_empty() {
                return all;
            }
            all.extend_from_slice(to.filled());
        }
    }

    #[test]
    fn one_greeting_is_translated_and_everything_else_left_alone() {
        for (said, heard) in [
            ("ICY 200 OK\r\nicy-name:x\r\n\r\nICY ", "HTTP/1.0 200 OK\r\nicy-name:x\r\n\r\nICY "),
            ("HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n"),
            ("ICY", "ICY"),
            ("", ""),
        ] {
            for (part, room) in [(1, 1), (1, 100), (3, 5), (100, 3), (100, 100)] {
                assert_eq!(read(said.as_bytes(), part, room), heard.as_bytes(), "{said} in {part}s, read in {room}s");
            }
        }
    }
}
