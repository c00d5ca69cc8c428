//! Draws a `View` on a PNG file or a terminal.
//!
//! [`PanelHandle`] runs a panel on a thread of its own. It is fed through a slot that holds the latest view only: showing
//! never waits, and a slow panel leaves views out instead of falling behind. A view equal to the one shown costs a comparison.

pub mod bitmap;
pub mod draw;
pub mod font;
pub mod frame;
pub mod icons;
pub mod png;
pub mod terminal;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jukebox_core::view::View;

pub use self::png::Png;
pub use self::terminal::Terminal;

/// How long one page of a text that does not fit is shown.
const BEAT: Duration = Duration::from_secs(4);
/// How often a terminal is asked for its size.
const LOOK: Duration = Duration::from_secs(1);
/// Stack of the panel's thread, in bytes.
const STACK: usize = 256 << 10;

/// Where the view is shown.
pub enum Panel {
    /// Nowhere.
    None,
    /// In a PNG file.
    Png(Png),
    /// In the terminal we were started in.
    Terminal(Terminal),
}

impl Panel {
    /// Shows `view` in beat number `beat`; returns whether the next beat looks different.
    ///
    /// # Errors
    /// The file or the terminal cannot be written.
    pub fn show(&mut self, view: &View, beat: u32) -> io::Result<bool> {
        match self {
            Self::None => Ok(false),
            Self::Png(png) => png.show(view, beat),
            Self::Terminal(terminal) => terminal.show(view).map(|()| false),
        }
    }

    /// Whether what is shown must be drawn again although it is the same.
    fn disturbed(&self) -> bool {
        matches!(self, Self::Terminal(terminal) if terminal.resized())
    }

    /// When to look again without a new view.
    fn patience(&self, paged: bool) -> Option<Duration> {
        match self {
            Self::Terminal(_) => Some(LOOK),
            _ => paged.then_some(BEAT),
        }
    }
}

/// A panel on its own thread, until this is dropped. The last view handed over is shown before the thread ends.
pub struct PanelHandle {
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Slot {
    post: Mutex<Post>,
    news: Condvar,
}

#[derive(Default)]
struct Post {
    view: Option<View>,
    stop: bool,
}

impl PanelHandle {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(panel: Panel) -> io::Result<Self> {
        let slot = Arc::new(Slot::default());
        let feed = Arc::clone(&slot);
        let thread = thread::Builder::new().name("panel".into()).stack_size(STACK).spawn(move || run(panel, &feed))?;
        Ok(Self { slot, thread: Some(thread) })
    }

    /// Shows `view` soon, instead of any that was not shown yet. Never waits for the panel.
    pub fn show(&self, view: View) {
        self.slot.lock().view = Some(view);
        self.slot.news.notify_one();
    }
}

impl Drop for PanelHandle {
    fn drop(&mut self) {
        self.slot.lock().stop = true;
        self.slot.news.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Post> {
        // The lock is held for a move only: nothing in it can be half done.
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next view, or none when `patience` is over or it is time to stop; and whether it is.
    fn wait(&self, patience: Option<Duration>) -> (Option<View>, bool) {
        let post = self.lock();
        let idle = |post: &mut Post| post.view.is_none() && !post.stop;
        let mut post = match patience {
            None => self.news.wait_while(post, idle).unwrap_or_else(PoisonError::into_inner),
            Some(time) => self.news.wait_timeout_while(post, time, idle).unwrap_or_else(PoisonError::into_inner).0,
        };
        (post.view.take(), post.stop)
    }
}

fn run(mut panel: Panel, slot: &Slot) {
    let mut shown: Option<(View, u32)> = None;
    let (mut since, mut patience) = (Instant::now(), None);
    let mut complaint = String::new();
    loop {
        let (view, stop) = slot.wait(patience);
        let Some(view) = view.or_else(|| shown.as_ref().map(|(view, _)| view.clone())) else {
            if stop {
                return;
            }
            continue;
        };
        if shown.as_ref().is_none_or(|(old, _)| !same_subject(old, &view)) {
            since = Instant::now();
        }
        let beat = (since.elapsed().as_secs() / BEAT.as_secs()) as u32;
        let now = (view, beat);
        if shown.as_ref() != Some(&now) || panel.disturbed() {
            match panel.show(&now.0, now.1) {
                Ok(paged) => patience = panel.patience(paged),
                Err(fault) if fault.to_string() != complaint => {
                    complaint = fault.to_string();
                    tracing::warn!("the panel cannot show: {complaint}");
                }
                Err(_) => {}
            }
            shown = Some(now);
        }
        if stop {
            return;
        }
    }
}

/// Whether both views are of the same thing: then paging goes on, even while a figure in the detail counts.
fn same_subject(a: &View, b: &View) -> bool {
    a.icon == b.icon && a.title == b.title && a.artist == b.artist
}

#[cfg(test)]
mod tests {
    use jukebox_core::view::Text;

    use super::*;
    use crate::profile::Screen;

    fn view(headline: &str) -> View {
        View { headline: Text::new(headline), ..View::default() }
    }

    #[test]
    fn the_last_view_is_in_the_file_when_the_panel_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("panel.png");
        let panel = PanelHandle::start(Panel::Png(Png::new(path.clone(), Screen::Oled))).unwrap();
        for n in 0..100 {
            panel.show(view(&format!("Number {n}")));
        }
        drop(panel);
        assert_eq!(std::fs::read(&path).unwrap(), png::picture(Screen::Oled, &view("Number 99"), 0).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no half-written file stays");
    }

    #[test]
    fn a_view_that_looks_the_same_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("panel.png");
        let mut png = Png::new(path.clone(), Screen::Lcd);
        png.show(&view("Playing"), 0).unwrap();
        std::fs::remove_file(&path).unwrap();
        png.show(&view("Playing\u{200b}"), 0).unwrap();
        assert!(!path.exists());
        png.show(&view("Paused"), 0).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn showing_never_waits_for_a_panel_that_hangs() {
        // A pipe that nobody reads: the panel's thread hangs in opening it.
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("panel.png.new");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let panel = PanelHandle::start(Panel::Png(Png::new(dir.path().join("panel.png"), Screen::Oled))).unwrap();
        let before = Instant::now();
        for n in 0..1000 {
            panel.show(view(&n.to_string()));
        }
        assert!(before.elapsed() < Duration::from_secs(1));
        // Somebody reads at last: the thread goes on and ends.
        let reader = thread::spawn(move || std::fs::read(fifo));
        drop(panel);
        reader.join().unwrap().unwrap();
    }
}
