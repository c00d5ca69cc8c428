//! Draws a `View` on an SSD1306, an ST7789, a PNG file or a terminal.
//!
//! [`PanelHandle`] runs a panel on a thread of its own. It is fed through a slot that holds the latest view only: showing
//! never waits, and a slow panel leaves views out instead of falling behind. A view equal to the one shown costs a comparison.
//! A panel that fails is tried again every five seconds. Nothing changes more often than the views do, which is once a second.

pub mod bitmap;
pub mod draw;
pub mod font;
pub mod frame;
pub mod icons;
pub mod lcd;
pub mod oled;
pub mod png;
pub mod terminal;
mod wired;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jukebox_core::view::View;

pub use self::draw::{COVER_SIDE, Cover, Look};
pub use self::png::Png;
pub use self::terminal::Terminal;
pub use self::wired::Wired;

/// How long one page of a text that does not fit is shown.
const BEAT: Duration = Duration::from_secs(4);
/// How long all stays where it is before it moves by a pixel.
const STAY: Duration = Duration::from_secs(60);
/// When a panel that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
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
    /// On a panel on wires.
    Wired(Wired),
}

impl Panel {
    /// Shows `view`; returns whether the next beat looks different.
    ///
    /// # Errors
    /// The file or the terminal cannot be written, or the panel does not answer.
    pub fn show(&mut self, view: &View, look: &Look) -> io::Result<bool> {
        match self {
            Self::None => Ok(false),
            Self::Png(png) => png.show(view, look),
            Self::Terminal(terminal) => terminal.show(view).map(|()| false),
            Self::Wired(wired) => wired.show(view, look),
        }
    }

    /// Whether what is shown must be drawn again although it is the same.
    fn disturbed(&self) -> bool {
        matches!(self, Self::Terminal(terminal) if terminal.resized())
    }

    /// When to look again without a new view, `age` after the first one.
    fn patience(&self, paged: bool, age: Duration) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Terminal(_) => Some(LOOK),
            _ if paged => Some(BEAT),
            Self::Png(_) | Self::Wired(_) => {
                Some(STAY - Duration::from_millis((age.as_millis() % STAY.as_millis()) as u64))
            }
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
    dim: bool,
    cover: Option<Arc<Cover>>,
    /// Anything but the view has changed.
    fresh: bool,
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

    /// Takes light away for the night, or gives it back.
    pub fn dim(&self, dim: bool) {
        self.slot.change(|post| std::mem::replace(&mut post.dim, dim) != dim);
    }

    /// Where covers are handed in.
    pub fn covers(&self) -> Covers {
        Covers(Arc::clone(&self.slot))
    }
}

/// Takes covers to a panel; it may outlive the panel.
#[derive(Clone)]
pub struct Covers(Arc<Slot>);

impl Covers {
    /// Has `cover` at hand for views that name it, instead of the one before.
    pub fn put(&self, cover: Cover) {
        self.0.change(|post| {
            post.cover = Some(Arc::new(cover));
            true
        });
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

    /// Changes the post; the thread is woken if that says so.
    fn change(&self, how: impl FnOnce(&mut Post) -> bool) {
        let mut post = self.lock();
        if how(&mut post) {
            post.fresh = true;
            drop(post);
            self.news.notify_one();
        }
    }

    /// The post, with a view if there is a new one, as soon as something is new or `patience` is over.
    fn wait(&self, patience: Option<Duration>) -> Post {
        let post = self.lock();
        let idle = |post: &mut Post| post.view.is_none() && !post.fresh && !post.stop;
        let mut post = match patience {
            None => self.news.wait_while(post, idle).unwrap_or_else(PoisonError::into_inner),
            Some(time) => self.news.wait_timeout_while(post, time, idle).unwrap_or_else(PoisonError::into_inner).0,
        };
        post.fresh = false;
        Post { view: post.view.take(), cover: post.cover.clone(), ..*post }
    }
}

fn run(mut panel: Panel, slot: &Slot) {
    let mut shown: Option<(View, Look)> = None;
    let began = Instant::now();
    let (mut since, mut patience, mut failed) = (began, None, false);
    let mut complaint = String::new();
    loop {
        let Post { view, dim, cover, stop, .. } = slot.wait(patience);
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
        let shift = (began.elapsed().as_secs() / STAY.as_secs()) as u32;
        let now = (view, Look { beat, shift, dim, cover });
        if shown.as_ref() != Some(&now) || failed || panel.disturbed() {
            let outcome = panel.show(&now.0, &now.1);
            failed = outcome.is_err();
            match outcome {
                Ok(paged) => {
                    patience = panel.patience(paged, began.elapsed());
                    complaint.clear();
                }
                Err(fault) => {
                    patience = Some(AGAIN);
                    let fault = fault.to_string();
                    if fault != complaint {
                        tracing::warn!("the panel cannot show: {fault}");
                        complaint = fault;
                    }
                }
            }
            shown = Some(now);
        } else if patience.is_some() {
            patience = panel.patience(patience == Some(BEAT), began.elapsed());
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
        assert_eq!(
            std::fs::read(&path).unwrap(),
            png::picture(Screen::Oled, &view("Number 99"), &Look::default()).unwrap()
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no half-written file stays");
    }

    #[test]
    fn a_view_that_looks_the_same_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("panel.png");
        let mut png = Png::new(path.clone(), Screen::Lcd);
        png.show(&view("Playing"), &Look::default()).unwrap();
        std::fs::remove_file(&path).unwrap();
        png.show(&view("Playing\u{200b}"), &Look::default()).unwrap();
        assert!(!path.exists());
        png.show(&view("Paused"), &Look::default()).unwrap();
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
