//! How the machine is: temperature, and whether it is slowed down or its power supply too weak. Read-only numbers of sysfs.

use std::fs;
use std::path::{Path, PathBuf};

use jukebox_core::exchange::Throttle;

/// Where a Raspberry Pi's firmware tells (kernel of Raspberry Pi OS, drivers/firmware/raspberrypi.c).
const THROTTLED: &str = "sys/devices/platform/soc/soc:firmware/get_throttled";
/// The rest of a card's life that is worth a word: 10 means over 90 % used (JEDEC eMMC 5.1, DEVICE_LIFE_TIME_EST).
const WORN: u8 = 10;

/// What could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Temperature of the processor, in degrees Celsius.
    pub cpu_c: Option<i16>,
    /// What holds it back just now; none where nobody tells.
    pub throttled: Option<Vec<Throttle>>,
    /// Used part of an eMMC's life in percent, in steps of ten; SD cards do not tell.
    pub card_worn_pct: Option<u8>,
}

impl Vitals {
    /// Looks.
    pub fn look() -> Self {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> Self {
        let number = |path: &str| read(&root.join(path))?.parse::<i32>().ok();
        let cpu_c = number("sys/class/thermal/thermal_zone0/temp").and_then(|milli| i16::try_from(milli / 1_000).ok());
        let throttled = read(&root.join(THROTTLED)).and_then(|hex| {
            let bits = u32::from_str_radix(hex.trim_start_matches("0x"), 16).ok()?;
            // Bits 0 to 3: now. Those from 16 on: since boot (documentation of vcgencmd, get_throttled).
            let all = [Throttle::UnderVoltage, Throttle::Capped, Throttle::Throttled, Throttle::Hot];
            Some(all.into_iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, t)| t).collect())
        });
        let throttled = throttled.or_else(|| {
            let alarm = number(&format!("{}/in0_lcrit_alarm", volt(root)?.display()))?;
            Some(if alarm != 0 { vec![Throttle::UnderVoltage] } else { Vec::new() })
        });
        let life = read(&root.join("sys/block/mmcblk0/device/life_time")).and_then(|text| {
            let worst = text.split_whitespace().filter_map(|w| u8::from_str_radix(w.trim_start_matches("0x"), 16).ok());
            worst.max().filter(|n| (1..=WORN + 1).contains(n))
        });
        Self { cpu_c, throttled, card_worn_pct: life.map(|n| (n * 10).min(100)) }
    }
}

/// The sensor of the power supply (kernel, drivers/hwmon/raspberrypi-hwmon.c), relative to the root.
fn volt(root: &Path) -> Option<PathBuf> {
    let all = fs::read_dir(root.join("sys/class/hwmon")).ok()?;
    let named = |path: &PathBuf| read(&path.join("name")).is_some_and(|name| name == "rpi_volt");
    let found = all.filter_map(|e| Some(e.ok()?.path())).find(named)?;
    found.strip_prefix(root).ok().map(Into::into)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_a_pi_tells() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(Vitals::below(folder.path()), Vitals::default());
        write("sys/class/hwmon/hwmon1/name", "rpi_volt\n");
        write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
        write("sys/class/thermal/thermal_zone0/temp", "61318\n");
        let seen = Vitals::below(folder.path());
        assert_eq!((seen.cpu_c, seen.throttled), (Some(61), Some(vec![Throttle::UnderVoltage])));
        write(THROTTLED, "50005\n");
        write("sys/block/mmcblk0/device/life_time", "0x01 0x0a\n");
        let seen = Vitals::below(folder.path());
        assert_eq!(seen.throttled, Some(vec![Throttle::UnderVoltage, Throttle::Throttled]));
        assert_eq!(seen.card_worn_pct, Some(100));
        write(THROTTLED, "0\n");
        assert_eq!(Vitals::below(folder.path()).throttled, Some(Vec::new()));
    }
}
