//! CPU of publishing, against ffmpeg doing the same: both Opus renditions and loudness with true peak, of FLAC 44.1/16.
//!
//! Ours cuts, hashes, decodes what it encodes and looks for pre-rolls besides. User and system time of the whole process.

use std::path::Path;
use std::process::Command;

use super::{Bench, Figure, quantile};
use crate::rig::{music, program};

const NAME: &str = "publish.cpu";
const LIMIT: f64 = 0.8;

/// Ratio of our CPU time to ffmpeg's, the median of three pairs.
pub(super) fn cpu(bench: &Bench) -> Vec<Figure> {
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        return vec![Figure::not_here(NAME, LIMIT, "x", "no ffmpeg")];
    }
    let folder = super::house::folder();
    let at = |name: &str| folder.path().join(name);
    let seconds = if bench.quick { 60.0 } else { 240.0 };
    if let Err(e) = std::fs::create_dir(at("music")) {
        panic!("{}: {e}", at("music").display());
    }
    let file = at("music/a.flac");
    music::make(&file, &music::Song { seconds, ..music::Song::default() });
    let (mut ours, mut theirs) = (vec![], vec![]);
    for n in 0..3 {
        let library = at(&format!("library-{n}"));
        ours.push(cpu_of(&program("jukebox-office"), &["publish", "--jobs", "1", path(&at("music")), path(&library)]));
        let split = "[0:a]asplit=3[a][b][c];[c]ebur128=peak=true[d]";
        let (high, low) = (at("96.opus"), at("32.opus"));
        let args = [
            &["-nostdin", "-v", "error", "-y", "-i", path(&file), "-filter_complex", split][..],
            &["-map", "[a]", "-c:a", "libopus", "-b:a", "96k", path(&high)],
            &["-map", "[b]", "-c:a", "libopus", "-b:a", "32k", path(&low)],
            &["-map", "[d]", "-f", "null", "-"],
        ];
        theirs.push(cpu_of(Path::new("ffmpeg"), &args.concat()));
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    let per_hour = |times: &[f64]| quantile(times, 0.5) * 3_600.0 / seconds;
    let conditions = format!(
        "of ffmpeg's CPU; {seconds} s of FLAC 44.1/16, median of 3 pairs; an hour of music: {:.0} s against {:.0} s, {}",
        per_hour(&ours),
        per_hour(&theirs),
        bench.load()
    );
    vec![Figure::new(NAME, quantile(&ratios, 0.5), LIMIT, "x", conditions)]
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Seconds of user and system time that a program took, by bash's own account.
fn cpu_of(program: &Path, args: &[&str]) -> f64 {
    let script = r#"TIMEFORMAT='%U %S'; time "$@" >/dev/null 2>&1"#;
    let out = Command::new("bash").args(["-c", script, "cpu"]).arg(program).args(args).output();
    let out = out.unwrap_or_else(|e| panic!("bash: {e}"));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{} {args:?}: {said}", program.display());
    said.split_whitespace().filter_map(|t| t.parse::<f64>().ok()).sum()
}
