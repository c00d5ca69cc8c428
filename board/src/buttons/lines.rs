//! Lines of the GPIO character device: all of them in one request, on one thread.

use std::io::{self, PipeReader, PipeWriter};
use std::path::Path;
use std::thread::{self, JoinHandle};

use gpiocdev::Request;
use gpiocdev::line::{Bias, EdgeDetection, EdgeKind};
use jukebox_core::gesture::Edge;
use rustix::event::{PollFd, PollFlags, poll};

use super::{ButtonError, Wiring};

/// Lines that are listened to until this is dropped.
pub(super) struct Lines {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    pub(super) fn start(
        wiring: Wiring,
        chip: &Path,
        tell: impl Fn(Edge) + Send + 'static,
    ) -> Result<Self, ButtonError> {
        let refused = |e: &dyn std::fmt::Display| ButtonError::Refused(format!("{}: {e}", chip.display()));
        let offsets: Vec<u32> = wiring.pins().map(u32::from).collect();
        let request = Request::builder()
            .on_chip(chip)
            .with_consumer("jukebox")
            .with_lines(&offsets)
            .as_input()
            .with_bias(Bias::PullUp)
            .with_edge_detection(EdgeDetection::BothEdges)
            .request()
            .map_err(|e| refused(&e))?;
        let (stopped, stop) = io::pipe().map_err(|e| refused(&e))?;
        let thread = thread::Builder::new().name("buttons".into()).stack_size(128 << 10);
        let thread = thread.spawn(move || listen(&request, &stopped, wiring, &tell)).map_err(|e| refused(&e))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // The closed pipe wakes the thread.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(request: &Request, stopped: &PipeReader, mut wiring: Wiring, tell: &dyn Fn(Edge)) {
    loop {
        let mut fds = [PollFd::new(request, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !fds[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        match request.read_edge_event() {
            Ok(event) => {
                let (pin, low) = (u8::try_from(event.offset).unwrap_or(u8::MAX), event.kind == EdgeKind::Falling);
                if let Some(edge) = wiring.edge(pin, low) {
                    tell(edge);
                }
            }
            Err(fault) => return tracing::error!("the buttons are gone: {fault}"),
        }
    }
}
