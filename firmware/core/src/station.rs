//! A live stream's address: which URLs the configuration allows, and which machines a name may lead to.
//!
//! *Rule*: a line of the allow-list: `https://HOST[:PORT]/PATH` allows that scheme, host, port and everything below the
//! path; `HOST` both schemes at their own ports; `*.HOST` every name below it. *Private*: an address that is not of the
//! public Internet; whoever may name URLs must not reach the office's own machines through a player.

use alloc::format;
use alloc::string::{String, ToString};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use crate::library::{Digest, TrackId};

/// Longest URL of a stream, in bytes.
pub const MAX_URL: usize = 500;

/// A URL taken apart: `http` or `https`, no user, no fragment, no way up in its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `https`.
    pub secure: bool,
    /// In small letters; an IPv6 address without its brackets.
    pub host: String,
    /// The one given, or the scheme's.
    pub port: u16,
    /// From its first slash on, with the query.
    pub path: String,
}

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_URL {
            return Err("it is longer than 500 bytes");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"<>^`{|}#".contains(&b)) {
            return Err("a URL has no blanks and none of \\ \" < > ^ ` { | } #; write them as %XX");
        }
        let (scheme, rest) = text.split_once("://").ok_or("it is no URL")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("a stream is http:// or https://"),
        };
        let (authority, path) = match rest.find(['/', '?']) {
            None => (rest, "/".to_string()),
            Some(at) if rest[at..].starts_with('?') => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_string()),
        };
        if authority.contains('@') {
            return Err("no user or password in a URL");
        }
        let (host, port) = if let Some(six) = authority.strip_prefix('[') {
            let (host, port) = six.split_once(']').ok_or("a `]` is missing")?;
            host.parse::<Ipv6Addr>().map_err(|_| "the address in brackets is none")?;
            (host, port)
        } else {
            let at = authority.find(':').unwrap_or(authority.len());
            authority.split_at(at)
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => {
                if secure {
                    443
                } else {
                    80
                }
            }
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|p| *p != 0).ok_or("a port is 1 to 65535")?
            }
            _ => return Err("a port is 1 to 65535"),
        };
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        if host.is_empty()
            || !(host.contains(':') || host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)))
        {
            return Err("it names no host");
        }
        // What a resolver takes for an address although it does not look like one (0x7f.1, 2130706433) is no name.
        let last = host.rsplit('.').next().unwrap_or_default();
        let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
        if number && !host.contains(':') && host.parse::<Ipv4Addr>().is_err() {
            return Err("it names no host");
        }
        let plain = path.split('?').next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
        if plain.contains("%2f") || plain.contains("%5c") || plain.split('/').any(|part| part == ".." || part == ".") {
            return Err("no way up in a URL");
        }
        Ok(Self { secure, host: host.into(), port, path })
    }
}

impl Url {
    /// The address that it names, where it names no host.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// What stands for the station until it says its name: host and path.
    pub fn short(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{}{}", self.host, path.trim_end_matches('/'))
    }
}

/// The track that stands for a stream: the first bytes of the SHA-256 of its URL.
pub fn track(url: &str) -> TrackId {
    TrackId(Digest::of(url.as_bytes()).0.first_chunk().copied().unwrap_or_default())
}

/// A line of the allow-list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// This scheme, host and port, from this path on.
    Below(Url),
    /// This host, both schemes at their own ports.
    Host(String),
    /// Every name below this one.
    Under(String),
}

impl FromStr for Rule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("://") {
            return text.parse().map(Self::Below);
        }
        let (name, under) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let brackets = if name.contains(':') { format!("http://[{name}]/") } else { format!("http://{name}/") };
        let url: Url = brackets.parse()?;
        match url {
            Url { port: 80, path, host, .. } if path == "/" && !under => Ok(Self::Host(host)),
            Url { port: 80, path, host, .. } if path == "/" && host.contains('.') => Ok(Self::Under(host)),
            _ if under => Err("`*.` stands before a name such as example.org"),
            _ => Err("write https://HOST:PORT/PATH, HOST or *.HOST"),
        }
    }
}

impl Rule {
    /// Whether it allows a URL.
    pub fn allows(&self, url: &Url) -> bool {
        let usual = url.port == if url.secure { 443 } else { 80 };
        match self {
            Self::Host(host) => usual && url.host == *host,
            Self::Under(name) => {
                let below = url.host.strip_suffix(name.as_str()).and_then(|h| h.strip_suffix('.'));
                usual && url.address().is_none() && below.is_some_and(|h| !h.is_empty())
            }
            Self::Below(rule) => {
                let same = (url.secure, &url.host, url.port) == (rule.secure, &rule.host, rule.port);
                let rest = url.path.strip_prefix(rule.path.as_str());
                let whole = rest.is_some_and(|r| rule.path.ends_with('/') || r.is_empty() || r.starts_with(['/', '?']));
                same && whole
            }
        }
    }
}

/// Whether one of the rules, as they are written in the configuration, allows a URL.
pub fn allowed(rules: &[String], url: &Url) -> bool {
    rules.iter().filter_map(|r| r.parse::<Rule>().ok()).any(|r| r.allows(url))
}

/// A network: an address, or `ADDRESS/BITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| "it is no address such as 10.1.2.3 or 10.1.0.0/16")?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |b| b.parse().ok().filter(|b| *b <= most));
        Ok(Self { address, bits: bits.ok_or("behind the slash stands the count of its bits, as in 10.1.0.0/16")? })
    }
}

impl Network {
    /// Whether an address lies in it.
    pub fn holds(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0,
            _ => false,
        }
    }
}

/// Whether an address is of the public Internet (the IANA registries of special-purpose addresses, RFC 6890, and multicast).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [a, b, c, _] = a.octets();
            !matches!(
                (a, b, c),
                (0 | 10 | 127 | 224.., _, _)
                    | (100, 64..=127, _)
                    | (169, 254, _)
                    | (172, 16..=31, _)
                    | (192, 0, 0 | 2)
                    | (192, 88, 99)
                    | (192, 168, _)
                    | (198, 18 | 19, _)
                    | (198, 51, 100)
                    | (203, 0, 113)
            )
        }
        IpAddr::V6(six) => {
            if let Some(four) = six.to_ipv4_mapped() {
                return is_public(IpAddr::V4(four));
            }
            let s = six.segments();
            match s {
                // An IPv4 address behind a translator (RFC 6052).
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                    is_public(IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))))
                }
                [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, ..] => false,
                [first, ..] => first & 0xe000 == 0x2000,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn urls_are_taken_apart_and_odd_ones_refused() {
        let found = url("HTTPS://Radio.Example.org./live/jazz.mp3?x=1");
        assert_eq!((found.secure, found.host.as_str(), found.port), (true, "radio.example.org", 443));
        assert_eq!(
            (found.path.as_str(), found.short().as_str()),
            ("/live/jazz.mp3?x=1", "radio.example.org/live/jazz.mp3")
        );
        assert_eq!(url("http://h:8000").path, "/");
        assert_eq!(url("http://h?x").path, "/?x");
        assert_eq!((url("http://[::1]:8000/a").host.as_str(), url("http://[::1]:8000/a").port), ("::1", 8_000));
        for odd in [
            "radio",
            "ftp://h/",
            "file:///etc/passwd",
            "http://",
            "http://u:p@h/",
            "http://h@evil/",
            "http://h:0/",
            "http://h:99999/",
            "http://h:+80/",
            "http://h:80:80/",
            "http://h/a b",
            "http://h/\r\nX: y",
            "http://h\\@evil/",
            "http://h/#x",
            "http://[::1",
            "http://[x]/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://h/a/../b",
            "http://h/a/%2e%2E/b",
            "http://h/a/%2e./b",
            "http://h/a%2f..%2fb",
            "http://hé/",
        ] {
            assert!(odd.parse::<Url>().is_err(), "{odd}");
        }
        assert!(format!("http://h/{}", "x".repeat(500)).parse::<Url>().is_err());
    }

    #[test]
    fn a_rule_allows_what_lies_below_it_and_nothing_beside() {
        let rules =
            ["https://a.org/live", "http://b.org:8000/", "c.org", "*.d.org", "http://10.0.0.5:8000/"].map(String::from);
        for good in [
            "https://a.org/live",
            "https://a.org/live/x",
            "https://a.org/live?x",
            "http://b.org:8000/any",
            "http://c.org/x",
            "https://C.ORG/x",
            "https://s1.d.org/x",
            "http://10.0.0.5:8000/x",
        ] {
            assert!(allowed(&rules, &url(good)), "{good}");
        }
        for bad in [
            "http://a.org/live",
            "https://a.org/",
            "https://a.org/liver",
            "https://a.org:444/live",
            "https://a.org.evil.net/live",
            "http://b.org/any",
            "http://c.org:22/x",
            "http://d.org/x",
            "http://xd.org/x",
            "http://evil.net/?http://c.org/",
            "http://10.0.0.6:8000/x",
        ] {
            assert!(!allowed(&rules, &url(bad)), "{bad}");
        }
        for odd in ["", "*", "*.", "*.org", "a.org/x", "a.org:80/x", "a b", "*.1.2.3.4:8", "ftp://x/"] {
            assert!(odd.parse::<Rule>().is_err(), "{odd}");
        }
    }

    #[test]
    fn private_addresses_are_known_in_every_dress() {
        let is = |text: &str| is_public(text.parse().unwrap());
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
            assert!(is(public), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2002:a00:1::",
            "2001:0:1::",
            "2001:db8::1",
        ] {
            assert!(!is(private), "{private}");
        }
    }

    #[test]
    fn networks_hold_their_own() {
        let net = |text: &str| text.parse::<Network>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(net("10.1.0.0/16").holds(ip("10.1.255.9")) && !net("10.1.0.0/16").holds(ip("10.2.0.1")));
        assert!(net("10.1.2.3").holds(ip("10.1.2.3")) && !net("10.1.2.3").holds(ip("10.1.2.4")));
        assert!(net("0.0.0.0/0").holds(ip("1.2.3.4")) && !net("0.0.0.0/0").holds(ip("::1")));
        assert!(net("fd00::/8").holds(ip("fd12::1")) && !net("::1").holds(ip("::2")));
        for odd in ["10.1", "10.1.0.0/33", "10.1.0.0/x", "::1/129", "host", ""] {
            assert!(odd.parse::<Network>().is_err(), "{odd}");
        }
    }
}
