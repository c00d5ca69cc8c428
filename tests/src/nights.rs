//! Nights by the thousand: the player in the simulated world beside the physical limit, and what must hold in each.
//!
//! *Night*: hours of simulated time on one link with its faults, its people and its power cuts, all from one seed. A calm
//! night has people who only ask for more; a rough one has power cuts too; in an unruly one they also skip, pause, seek, move and
//! remove. What is compared with the limit is compared in calm and rough nights.
//!
//! Law: a night is a function of its seed; a seed that fails replays alone.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use jukebox_core::exchange::Settings;
use jukebox_core::fallback::FallbackSettings;
use jukebox_core::time::{Instant, Span};
use serde_json::Value;

use crate::limit::limit;
use crate::world::library::{Library, RATE};
use crate::world::link::{Capacity, Fault, Link, Weather};
use crate::world::models::MODELS;
use crate::world::weather::{Dice, Model, parse};
use crate::world::{Purposes, Quiet, World, settings};

/// Which nights.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many
    #[arg(default_value_t = 1_000)]
    pub count: u64,
    /// This night alone, and what happens in it
    #[arg(long)]
    pub seed: Option<u64>,
    /// Whether the fallback plays while the queue waits
    #[arg(long, default_value = "off", value_parser = ["on", "off"])]
    pub fallback: String,
    /// Hours of a night
    #[arg(long, default_value_t = 12)]
    pub hours: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Calm,
    Rough,
    Unruly,
}

#[derive(Clone, Debug)]
enum Act {
    Add(u64),
    Say(&'static str, String),
    /// The power fails after so many more inputs.
    Cut(u64),
}

/// All that a seed decides.
struct Night {
    kind: Kind,
    link: String,
    weather: Weather,
    acts: Vec<(Instant, Act)>,
    end: Instant,
}

/// Tracks of the library of all nights.
const TRACKS: u64 = 400;

fn library() -> Library {
    let mut dice = Dice(1);
    let lengths: Vec<u64> = (0..TRACKS).map(|_| dice.between(100.0, 500.0) as u64).collect();
    Library::new(&lengths)
}

impl Night {
    fn of(seed: u64, hours: u64) -> Self {
        let mut dice = Dice(seed);
        let end = Instant(0) + Span::s(hours * 3_600);
        let kind = [Kind::Calm, Kind::Calm, Kind::Rough, Kind::Unruly][dice.below(4) as usize];
        let (capacity, name) = if dice.below(8) == 0 {
            let kbps = dice.between(20.0, 20_000.0) as u32;
            (Capacity::of_rates([(Instant(0), kbps * 125)]), format!("steady {kbps} kbit/s"))
        } else {
            let model = &MODELS[dice.below(MODELS.len() as u64) as usize];
            let scale = dice.between(0.05, 4.0);
            (model.generate(&mut dice, scale, end), format!("{} x {scale:.2}", model.name))
        };
        let rtt = Span::ms(dice.between(20.0, 400.0) as u64);
        let mut faults = Vec::new();
        let mut at = Instant(0);
        let calm = Span::s(dice.between(1_200.0, 40_000.0) as u64);
        loop {
            at = at + dice.wait(calm);
            let until = at + Span((dice.between(2.0, 1_800.0) * 1e6) as u64);
            if until >= end {
                break;
            }
            faults.push((at, until, Fault::ALL[dice.below(8) as usize]));
            at = until;
        }
        let link = format!("{name}, rtt {} ms, {} faults", rtt.as_ms(), faults.len());
        let acts = acts(kind, &mut dice, end);
        Self { kind, link, weather: Weather { capacity, rtt, faults }, acts, end }
    }
}

/// What people do, and when the power fails.
fn acts(kind: Kind, dice: &mut Dice, end: Instant) -> Vec<(Instant, Act)> {
    let mut acts = Vec::new();
    let mut tracks: Vec<u64> = (0..TRACKS).collect();
    jukebox_core::queue::shuffle(&mut tracks, dice.roll());
    // Some parties ask for more than there is time for, some leave it silent now and then.
    let pause = Span::s([350, 550, 900][dice.below(3) as usize]);
    let mut at = Instant(0) + dice.wait(Span::s(60)) + Span::s(2);
    while at < end {
        for _ in 0..dice.below(4) + 1 {
            let Some(n) = tracks.pop() else { break };
            acts.push((at, Act::Add(n)));
            at = at + Span::ms(dice.between(50.0, 5_000.0) as u64);
        }
        at = at + dice.wait(pause);
    }
    let mut sprinkle = |acts: &mut Vec<_>, mean: Span, what: &mut dyn FnMut(&mut Dice) -> Act| {
        let mut at = Instant(0) + dice.wait(mean);
        while at < end {
            acts.push((at, what(dice)));
            at = at + dice.wait(mean);
        }
    };
    if kind != Kind::Calm {
        sprinkle(&mut acts, Span::s(9_000), &mut |dice| Act::Cut(dice.below(300) + 1));
    }
    if kind == Kind::Unruly {
        sprinkle(&mut acts, Span::s(300), &mut |dice| {
            let (verb, payload) = match dice.below(9) {
                0 | 1 => ("skip", String::new()),
                2 => ("pause", String::new()),
                3 | 4 => ("play", String::new()),
                5 => ("seek", format!("{}", dice.below(400))),
                6 => ("remove", format!("{}", dice.below(100) + 1)),
                7 => ("move", format!(r#"{{"entry":{},"to":"next"}}"#, dice.below(100) + 1)),
                _ => ("previous", String::new()),
            };
            Act::Say(verb, payload)
        });
    }
    acts.sort_by_key(|a| a.0);
    acts
}

/// What came of a night.
#[derive(Debug, Default)]
struct Outcome {
    seed: u64,
    link: String,
    /// Against the properties.
    broken: Vec<String>,
    /// Compared with the limit.
    compared: bool,
    /// Seconds of silence, ours and the limit's.
    silence: (f64, f64),
    /// Seconds from a wish to its sound, ours and the limit's.
    starts: Vec<(f64, f64)>,
    /// Seconds of silence after five minutes of the fallback were on board.
    bare: f64,
    cuts: usize,
    played_s: f64,
    kbps: (u64, u64),
    mean_kbps: u64,
    changes: u64,
    purposes: Purposes,
    thought_ns: f64,
    simulated_s: f64,
}

fn seconds(s: Span) -> f64 {
    s.0 as f64 / 1e6
}

fn player(fallback: bool) -> Settings {
    let fallback = FallbackSettings { playlist: None, shuffle: false, when_waiting: fallback, when_empty: false };
    Settings { fallback, ..settings() }
}

/// A command of a night.
struct Said {
    at: Instant,
    token: u64,
    verb: &'static str,
    payload: String,
    /// What an `add` asks for.
    track: Option<u64>,
}

impl Said {
    /// The entry that an `add` was answered with, and its track.
    fn entry(&self, w: &World) -> Option<(u64, Instant, u64)> {
        let reply = w.replies.get(&self.token)?.first()?;
        Some((reply["data"]["entry"].as_u64()?, self.at, self.track?))
    }
}

/// Lives a night.
fn live(seed: u64, hours: u64, fallback: bool, library: &Arc<Library>, loud: bool) -> Outcome {
    let night = Night::of(seed, hours);
    let mut w = World::with(seed, Arc::clone(library), player(fallback));
    (w.light, w.loud) = (true, loud);
    w.link = Link::night(night.weather.clone());
    // What was said, and may have to be said again.
    let mut said: Vec<Said> = Vec::new();
    let mut cuts = 0;
    for (n, (at, act)) in night.acts.iter().enumerate() {
        w.pass(at.since(w.now));
        // Whoever got no answer asks again, as bots do; and somebody asks again who did.
        if std::mem::replace(&mut cuts, w.cuts.len()) != w.cuts.len() {
            let last = said.len().saturating_sub(1);
            for (i, s) in said.iter_mut().enumerate() {
                if !w.replies.contains_key(&s.token) || (i == last && s.track.is_some()) {
                    s.token = w.command(s.verb, &s.payload);
                }
            }
            w.pass(Span::ms(100));
        }
        match act {
            Act::Add(track) => {
                let payload = format!(r#"{{"text":"Track {track}","id":"night-{n:04}"}}"#);
                let token = w.command("add", &payload);
                said.push(Said { at: w.now, token, verb: "add", payload, track: Some(*track) });
            }
            Act::Say(verb, payload) => {
                let token = w.command(verb, payload);
                said.push(Said { at: w.now, token, verb, payload: payload.clone(), track: None });
            }
            Act::Cut(after) => w.cut_at = Some(w.inputs + after),
        }
    }
    w.pass(night.end.since(w.now));
    w.cut_at = None;
    judge(seed, &night, w, &said, fallback)
}

/// A start may take so long before the fallback steps in, and that a moment too.
const PATIENCE: Span = Span::s(2);

/// Plays that the fallback stood in for.
const FALLBACK: u32 = 1 << 31;

fn judge(seed: u64, night: &Night, mut w: World, said: &[Said], fallback: bool) -> Outcome {
    let mut o = Outcome { seed, link: night.link.clone(), ..Outcome::default() };
    o.compared = night.kind != Kind::Unruly;
    o.cuts = w.cuts.len();
    o.mean_kbps = night.weather.capacity.mean_kbps(night.end);
    o.simulated_s = seconds(night.end.since(Instant(0)));
    o.thought_ns = w.thought.as_nanos() as f64;
    o.changes = w.dac.renditions.changes;
    o.played_s = w.dac.renditions.total() as f64 / f64::from(RATE);
    o.purposes = w.purposes();
    let all: u64 = w.quiet.iter().map(|q| q.until.min(night.end).since(q.from.min(night.end)).0).sum();
    o.silence.0 = seconds(Span(all));
    if let Some(since) = w.spare_since {
        // A start waits a moment before the fallback steps in.
        let patience = |q: &Quiet| if q.start { PATIENCE } else { Span(0) };
        o.bare = w.quiet.iter().map(|q| seconds(q.until.since(q.from.max(since) + patience(q)))).sum();
    }
    exactly_once(&mut w, said, &mut o.broken);
    if o.compared {
        let useful = night.weather.useful();
        let mut entries: Vec<_> = said.iter().filter_map(|s| s.entry(&w)).collect();
        entries.sort_unstable();
        if entries.iter().zip(1..).any(|(e, n)| e.0 != n) {
            o.broken.push("entries are not numbered one by one".into());
        }
        let wishes: Vec<_> = entries.into_iter().map(|e| (e.1, e.2)).collect();
        let best = limit(&w.library, &useful, night.weather.rtt, &wishes, night.end);
        o.silence.1 = seconds(best.silence);
        o.kbps = (w.dac.renditions.kbps(), best.kbps);
        for q in w.quiet.iter().filter(|q| q.start) {
            let near = best.starts.iter().rev().find(|s| s.0 <= q.from);
            if let Some((_, least)) = near.filter(|s| q.from.since(s.0) < Span::ms(50)) {
                o.starts.push((seconds(q.until.since(q.from)), seconds(*least)));
            }
        }
        // What a power cut takes back sounds twice.
        let twice = (o.cuts as u64 * TAKEN_BACK_S) as f64;
        if !fallback && o.silence.0 + twice + 0.5 < o.silence.1 {
            o.broken.push(format!("the limit of {:.2} s of silence is beaten: {:.2} s", o.silence.1, o.silence.0));
        }
        in_order(&w, &wishes, fallback, &mut o.broken);
    }
    let (rows, bytes) = w.rows();
    if rows > 1_700 || bytes > 2_000_000 {
        o.broken.push(format!("{rows} rows of {bytes} bytes on the card"));
    }
    o
}

/// A power cut may take back so much: the playhead is saved every ten seconds, the ring was not heard.
const TAKEN_BACK_S: u64 = 13;

/// What sounded of the queue is what was asked for: in order, whole, each once.
fn in_order(w: &World, wishes: &[(Instant, u64)], fallback: bool, broken: &mut Vec<String>) {
    let length = |entry: u32| wishes.get(entry as usize - 1).map_or(0, |t| w.library.frames[t.1 as usize]);
    let (mut last, mut end, mut cuts) = (0_u32, 0_u64, 0);
    for (i, &(entry, from, frames)) in w.dac.sounded.iter().enumerate() {
        if entry.0 >= FALLBACK {
            continue;
        }
        let cut = w.cuts.iter().filter(|c| **c <= i).count();
        let after_cut = std::mem::replace(&mut cuts, cut) != cut;
        let back =
            if after_cut { TAKEN_BACK_S * u64::from(RATE) } else { 0 } + if fallback { 3 * u64::from(RATE) } else { 0 };
        let e = entry.0;
        let fine = match e {
            _ if e == last => from <= end + 2 && end.saturating_sub(from) <= back + 2,
            _ if e == last + 1 => from == 0 && (last == 0 || end + 2_000 >= length(last)),
            // The end of the one before may be heard again.
            _ if e + 1 == last && after_cut => end + length(e) <= from + back,
            _ => false,
        };
        if !fine {
            broken.push(format!(
                "entry {e} sounds from frame {from} after entry {last} up to {end} of {}",
                length(last.max(1))
            ));
        }
        (last, end) = (e, from + frames);
    }
}

/// Every acknowledged command is in effect, once.
fn exactly_once(w: &mut World, said: &[Said], broken: &mut Vec<String>) {
    w.link = Link::Up { kbps: 20_000, rtt: Span::ms(30) };
    w.pass(Span::s(5));
    let mut left = Vec::new();
    loop {
        let page = w.ask("queue", &format!(r#"{{"offset":{}}}"#, left.len()))["data"].clone();
        let entries: Vec<u64> =
            page["entries"].as_array().into_iter().flatten().filter_map(|e| e["entry"].as_u64()).collect();
        let done = entries.is_empty() || page["total"].as_u64() <= Some((left.len() + entries.len()) as u64);
        left.extend(entries);
        if done {
            break;
        }
    }
    if left.iter().collect::<BTreeSet<_>>().len() != left.len() {
        broken.push(format!("an entry is in the queue twice: {left:?}"));
    }
    let mut told = BTreeSet::new();
    let mut gone: std::collections::BTreeMap<u64, Vec<&str>> = std::collections::BTreeMap::new();
    for (kind, e) in &w.events {
        // At least once is what the broker promises.
        if !told.insert((e["boot"].as_str().unwrap_or_default().to_owned(), e["seq"].as_u64())) {
            continue;
        }
        if let (true, Some(entry)) = (matches!(kind.as_str(), "finished" | "skipped" | "removed"), e["entry"].as_u64())
        {
            gone.entry(entry).or_default().push(kind);
        }
    }
    let mut entries = BTreeSet::new();
    for s in said {
        let replies: &[Value] = w.replies.get(&s.token).map_or(&[], Vec::as_slice);
        let full = replies.first().is_some_and(|r| r["code"] == "queue_full");
        if replies.len() != 1 || (s.track.is_some() && replies[0]["status"] != "ok" && !full) {
            broken.push(format!("{} {} is answered {replies:?}", s.verb, s.payload));
        }
        let Some((entry, ..)) = s.entry(w) else { continue };
        if !entries.insert(entry) {
            broken.push(format!("two commands were answered with entry {entry}"));
        }
        let (here, fates) = (left.contains(&entry), gone.get(&entry).map_or(0, Vec::len));
        if usize::from(here) + fates != 1 {
            broken.push(format!(
                "entry {entry}: {} in the queue, and gone as {:?}",
                usize::from(here),
                gone.get(&entry)
            ));
        }
    }
}

/// Lives nights, prints what came of them; whether every property held in each.
pub fn run(args: &Args) -> bool {
    let (library, fallback) = (Arc::new(library()), args.fallback == "on");
    let one = |seed, loud| {
        let night = || live(seed, args.hours, fallback, &library, loud);
        catch_unwind(AssertUnwindSafe(night)).unwrap_or_else(|panic| {
            let text =
                panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let broken = vec![format!("panic: {}", text.unwrap_or_default())];
            Outcome { seed, link: Night::of(seed, args.hours).link, broken, ..Outcome::default() }
        })
    };
    if let Some(seed) = args.seed {
        let o = one(seed, true);
        println!("{o:#?}");
        return o.broken.is_empty();
    }
    let began = std::time::Instant::now();
    let (next, outcomes) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            s.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.count {
                        break;
                    }
                    let outcome = one(seed, false);
                    outcomes.lock().expect("no night panics outside").push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no night panics outside");
    outcomes.sort_by_key(|o| o.seed);
    report(&outcomes, fallback, args.hours, began.elapsed());
    outcomes.iter().all(|o| o.broken.is_empty())
}

/// Prints the models of these traces, for `world/models.rs`.
///
/// # Errors
/// A file that cannot be read, or a row that is none.
pub fn fit(files: &[std::path::PathBuf]) -> anyhow::Result<()> {
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let rows = parse(&std::fs::read_to_string(file)?).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
        println!("{:?},", Model::fit(name, &rows));
    }
    Ok(())
}

fn quantile(mut v: Vec<f64>, part: f64) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(((part * v.len() as f64).ceil() as usize).saturating_sub(1)).copied().unwrap_or(0.0)
}

fn verdict(good: bool) -> &'static str {
    if good { "PASS" } else { "FAIL" }
}

fn report(all: &[Outcome], fallback: bool, hours: u64, took: std::time::Duration) {
    let compared: Vec<_> = all.iter().filter(|o| o.compared && o.broken.is_empty()).collect();
    let sum = |f: &dyn Fn(&Outcome) -> f64| all.iter().map(f).sum::<f64>();
    println!(
        "{} nights of {hours} h in {:.1} s, the fallback {}; the {} calm and rough ones beside the limit",
        all.len(),
        took.as_secs_f64(),
        if fallback { "on" } else { "off" },
        compared.len()
    );
    let (ours, best): (f64, f64) =
        (compared.iter().map(|o| o.silence.0).sum(), compared.iter().map(|o| o.silence.1).sum());
    let over = |o: &Outcome| o.silence.0 - 1.02 * o.silence.1 - 0.5;
    if fallback {
        let bare = all.iter().filter(|o| o.bare > 0.0).count();
        println!(
            "{}  silence once 5 min of the fallback are on board: {:.1} s in {bare} nights (limit 0)",
            verdict(bare == 0),
            sum(&|o| o.bare)
        );
    } else {
        let late = compared.iter().filter(|o| over(o) > 0.0).count();
        println!(
            "{}  silence, starts included: {ours:.0} s, the limit's {best:.0} s; {late} nights above 1.02 x limit + 0.5 s",
            verdict(late == 0)
        );
    }
    let starts: Vec<_> = compared.iter().flat_map(|o| &o.starts).copied().collect();
    let late = starts.iter().filter(|s| s.0 > 1.15 * s.1 + 0.2).count();
    let part = |f: fn(&(f64, f64)) -> f64, p| quantile(starts.iter().map(f).collect(), p);
    println!(
        "{}  start delay: {} starts, median {:.2} s (limit {:.2}), p95 {:.2} s ({:.2}), worst {:.1} s ({:.1}); {late} above 1.15 x limit + 0.2 s",
        verdict(late == 0),
        starts.len(),
        part(|s| s.0, 0.5),
        part(|s| s.1, 0.5),
        part(|s| s.0, 0.95),
        part(|s| s.1, 0.95),
        part(|s| s.0, 1.0),
        part(|s| s.1, 1.0),
    );
    // Where silence is the limit's and the link has plenty.
    let plenty = |o: &&&Outcome| over(o) <= 0.0 && o.mean_kbps > 1_350 && o.kbps.1 > 0;
    let rates: Vec<f64> = compared.iter().filter(plenty).map(|o| o.kbps.0 as f64 / o.kbps.1 as f64).collect();
    let low = rates.iter().filter(|r| **r < 0.85).count();
    println!(
        "{}  bit rate: {} nights with plenty, median {:.0} % of the limit, worst {:.0} %; {low} below 85 %",
        verdict(low == 0),
        rates.len(),
        100.0 * quantile(rates.clone(), 0.5),
        100.0 * quantile(rates.clone(), 0.0)
    );
    let played = sum(&|o| o.played_s);
    let every = played / sum(&|o| o.changes as f64).max(1.0);
    println!("{}  changes of rendition: one in {every:.0} s of music (limit 30)", verdict(every >= 30.0));
    let total = sum(&|o| o.purposes.total() as f64).max(1.0);
    let share = |f: fn(&Purposes) -> u64| 100.0 * sum(&|o| f(&o.purposes) as f64) / total;
    let (wasted, copies) = (share(|p| p.late + p.lost), share(|p| p.copies));
    println!(
        "{}  bytes: {:.1} GB: played {:.1} %, on board {:.1} %, replaced by an upgrade {:.1} %, pre-roll and tail {copies:.2} % (limit 3), wasted {wasted:.2} % (limit 3), of these late {:.2} %",
        verdict(wasted <= 3.0 && copies <= 3.0),
        total / 1e9,
        share(|p| p.played),
        share(|p| p.on_board),
        share(|p| p.replaced),
        share(|p| p.late)
    );
    println!("      core: {:.0} ns per simulated second", sum(&|o| o.thought_ns) / sum(&|o| o.simulated_s).max(1.0));
    let mut worst: Vec<_> = all.iter().filter(|o| o.compared).collect();
    let bad = |o: &Outcome| if fallback { o.bare } else { over(o) };
    worst.sort_by(|a, b| bad(b).total_cmp(&bad(a)));
    println!("      worst:");
    for o in worst.iter().take(5) {
        println!(
            "        --seed {}: {:.1} s of silence, limit {:.1} s, bare {:.1} s, {} power cuts; {}",
            o.seed, o.silence.0, o.silence.1, o.bare, o.cuts, o.link
        );
    }
    let broken: Vec<_> = all.iter().filter(|o| !o.broken.is_empty()).collect();
    println!("{}  properties: broken in {} of {} nights", verdict(broken.is_empty()), broken.len(), all.len());
    for o in broken.iter().take(10) {
        println!(
            "        --seed {}: {} ({})",
            o.seed,
            o.broken.iter().take(2).cloned().collect::<Vec<_>>().join("; "),
            o.link
        );
    }
}
