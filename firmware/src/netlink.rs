//! What the kernel says about the ways out of this machine, the moment it happens (rtnetlink(7)).
//!
//! *Way*: an interface with carrier and an address that others can answer to. A change is *gained* (carrier, address, default
//! route came) or *lost*. Law: what the kernel repeats is no news, and neither are link-local addresses and addresses that
//! are not yet sure to be ours alone.
//!
//! The messages are read here, as they lie (linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h): a few fields of three kinds are
//! wanted, of which a library would bring some forty with all their attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};
use tokio::io::unix::AsyncFd;

/// RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
/// The kernel's own messages are no longer than this unless they are asked for with a larger buffer.
const BUFFER: usize = 16 << 10;

/// The interfaces of the machine, and where they lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, IpAddr)>,
    /// Default routes: metric, interface, gateway.
    routes: BTreeSet<(u32, u32, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    name: String,
    carrier: bool,
}

/// What has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Something came.
    pub gained: bool,
    /// Something went.
    pub lost: bool,
}

impl Ways {
    /// Whether there is any way out: an address on an interface with carrier.
    pub fn are_there(&self) -> bool {
        self.addresses.iter().any(|(link, _)| self.carries(*link))
    }

    /// Whether a connection from this address of ours may live: not one from an address that is gone, nor one whose
    /// interface has lost its carrier where there is another way.
    pub fn keep(&self, address: IpAddr) -> bool {
        let alone = !self.are_there();
        address.is_loopback() || self.addresses.iter().any(|(link, a)| *a == address && (alone || self.carries(*link)))
    }

    /// The interface that has an address.
    pub fn interface_of(&self, address: IpAddr) -> Option<&str> {
        let (link, _) = self.addresses.iter().find(|(_, a)| *a == address)?;
        self.links.get(link).map(|l| l.name.as_str())
    }

    /// Whether an interface has carrier and an address.
    pub fn leads_by(&self, interface: &str) -> bool {
        self.addresses.iter().any(|(link, _)| self.links.get(link).is_some_and(|l| l.carrier && l.name == interface))
    }

    /// The interface that the best default route leads to.
    pub fn leads_out(&self) -> Option<&str> {
        let best = self.routes.iter().find(|(_, link, _)| self.carries(*link));
        best.and_then(|(_, link, _)| self.links.get(link)).map(|link| link.name.as_str())
    }

    fn carries(&self, link: u32) -> bool {
        self.links.get(&link).is_some_and(|l| l.carrier)
    }

    /// Takes in one message.
    fn take(&mut self, kind: u16, body: &[u8]) -> Option<Change> {
        match kind {
            RTM_NEWLINK | RTM_DELLINK => self.link(kind == RTM_NEWLINK, body),
            RTM_NEWADDR | RTM_DELADDR => self.address(kind == RTM_NEWADDR, body),
            RTM_NEWROUTE | RTM_DELROUTE => self.route(kind == RTM_NEWROUTE, body),
            _ => None,
        }
    }

    fn link(&mut self, new: bool, body: &[u8]) -> Option<Change> {
        // struct ifinfomsg: family, padding, type (2), index (4), flags (4), change (4); IFLA_IFNAME is 3.
        const IFF_UP: u32 = 0x1;
        const IFF_LOOPBACK: u32 = 0x8;
        const IFF_LOWER_UP: u32 = 0x1_0000;
        let (index, flags) = (number(body, 4)?, number(body, 8)?);
        // A bridge tells of its ports in messages of its own family.
        if body[0] != 0 || flags & IFF_LOOPBACK != 0 {
            return None;
        }
        let name = attribute(body.get(16..)?, 3).unwrap_or_default();
        let name = String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned();
        let had = self.carries(index);
        let has = new && flags & IFF_UP != 0 && flags & IFF_LOWER_UP != 0;
        if new {
            self.links.insert(index, Link { name, carrier: has });
        } else {
            self.links.remove(&index);
        }
        if !new || flags & IFF_UP == 0 {
            // The kernel does not tell that IPv4 routes go with their interface.
            self.routes.retain(|r| r.1 != index);
        }
        Some(Change { gained: has && !had, lost: had && !has })
    }

    fn address(&mut self, new: bool, body: &[u8]) -> Option<Change> {
        // struct ifaddrmsg: family, prefix length, flags, scope, index (4); IFA_ADDRESS 1, IFA_LOCAL 2, IFA_FLAGS 8.
        const IFA_F_TENTATIVE: u32 = 0x40;
        const RT_SCOPE_LINK: u8 = 253;
        let (scope, index, rest) = (*body.get(3)?, number(body, 4)?, body.get(8..)?);
        let address = ip(attribute(rest, 2).or_else(|| attribute(rest, 1))?)?;
        let flags = attribute(rest, 8).and_then(|f| number(f, 0)).unwrap_or(body[2].into());
        if scope >= RT_SCOPE_LINK {
            return None;
        }
        // A tentative one is not ours yet.
        let has = new && flags & IFA_F_TENTATIVE == 0;
        let known = (index, address);
        Some(if has {
            Change { gained: self.addresses.insert(known), lost: false }
        } else {
            Change { gained: false, lost: self.addresses.remove(&known) }
        })
    }

    fn route(&mut self, new: bool, body: &[u8]) -> Option<Change> {
        // struct rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags (4); RTA_OIF 4,
        // RTA_GATEWAY 5, RTA_PRIORITY 6.
        const RT_TABLE_MAIN: u8 = 254;
        const RTN_UNICAST: u8 = 1;
        let rest = body.get(12..)?;
        if body[1] != 0 || body[4] != RT_TABLE_MAIN || body[7] != RTN_UNICAST {
            return None;
        }
        let number = |kind| attribute(rest, kind).and_then(|a| number(a, 0)).unwrap_or(0);
        let known = (number(6), number(4), attribute(rest, 5).unwrap_or_default().to_vec());
        Some(if new {
            Change { gained: self.routes.insert(known), lost: false }
        } else {
            Change { gained: false, lost: self.routes.remove(&known) }
        })
    }
}

/// The kernel's ear.
pub struct Netlink {
    socket: AsyncFd<OwnedFd>,
    ways: Ways,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Listens, and looks around. Needs a runtime.
    ///
    /// # Errors
    /// Those of the system: a service that may not open AF_NETLINK sockets, for example.
    pub async fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        #[expect(deprecated, reason = "its successor asks for a promise that an OwnedFd keeps by itself")]
        let socket = AsyncFd::new(socket)?;
        let mut it = Self { socket, ways: Ways::default(), buffer: vec![0; BUFFER] };
        for what in [RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE] {
            it.look(what).await?;
        }
        Ok(it)
    }

    /// The ways as they are now.
    pub fn ways(&self) -> &Ways {
        &self.ways
    }

    /// Waits for a change.
    ///
    /// # Errors
    /// Those of the system. `ENOBUFS` (more news than were read in time) is met by looking around anew.
    pub async fn next(&mut self) -> io::Result<Change> {
        loop {
            let length = match self.receive().await {
                Err(e) if e.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    *self = Self::open().await?;
                    return Ok(Change { gained: true, lost: true });
                }
                length => length?,
            };
            let mut change = Change::default();
            for (kind, body) in messages(&self.buffer[..length]) {
                let this = self.ways.take(kind, body).unwrap_or_default();
                change = Change { gained: change.gained | this.gained, lost: change.lost | this.lost };
            }
            if change != Change::default() {
                return Ok(change);
            }
        }
    }

    /// Asks for all of a kind, and takes it in.
    async fn look(&mut self, what: u16) -> io::Result<()> {
        // struct nlmsghdr: length (4), type (2), flags (2), sequence (4), port (4); behind it a family, any, and padding.
        let mut ask = [0; 32];
        ask[..4].copy_from_slice(&32_u32.to_ne_bytes());
        ask[4..6].copy_from_slice(&what.to_ne_bytes());
        ask[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
        send(self.socket.get_ref(), &ask, SendFlags::empty())?;
        loop {
            let length = self.receive().await?;
            for (kind, body) in messages(&self.buffer[..length]) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = number(body, 0).map_or(0, |n| n.cast_signed().wrapping_neg());
                        return Err(io::Error::from_raw_os_error(code));
                    }
                    kind => _ = self.ways.take(kind, body),
                }
            }
        }
    }

    async fn receive(&mut self) -> io::Result<usize> {
        loop {
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer[..];
            match ready.try_io(|s| Ok(recv(s.get_ref(), buffer, RecvFlags::empty())?.0)) {
                Ok(length) => return length,
                Err(_) => continue,
            }
        }
    }
}

/// Kind and body of each message of a datagram; what is cut short ends it.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = number(bytes, 0)? as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let body = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The value of an attribute (struct rtattr: length (2), type (2)).
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    let half = |bytes: &[u8], at| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    loop {
        let (length, this) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        let value = bytes.get(4..length)?;
        if this == kind {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(all: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in all {
            bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn link(index: u32, flags: u32) -> Vec<u8> {
        let mut body = vec![0, 0, 1, 0];
        body.extend([index.to_ne_bytes(), flags.to_ne_bytes(), [0; 4]].concat());
        body.extend(attributes(&[(13, &[1]), (3, b"wlan0\0")]));
        body
    }

    fn address(index: u32, scope: u8, flags: u32, ip: &[u8]) -> Vec<u8> {
        let mut body = vec![2, 24, 0, scope];
        body.extend(index.to_ne_bytes());
        body.extend(attributes(&[(1, ip), (8, &flags.to_ne_bytes())]));
        body
    }

    fn route(index: u32, metric: u32) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        body.extend(attributes(&[(5, &[10, 0, 0, 1]), (4, &index.to_ne_bytes()), (6, &metric.to_ne_bytes())]));
        body
    }

    const UP: u32 = 0x1_0001;
    const GAINED: Option<Change> = Some(Change { gained: true, lost: false });
    const LOST: Option<Change> = Some(Change { gained: false, lost: true });
    const NOTHING: Option<Change> = Some(Change { gained: false, lost: false });

    #[test]
    fn a_way_comes_and_goes_and_what_is_repeated_is_no_news() {
        let mut ways = Ways::default();
        let ip = [192, 0, 2, 7];
        assert_eq!(ways.take(RTM_NEWLINK, &link(3, 1)), NOTHING, "up, but no carrier");
        assert_eq!(ways.take(RTM_NEWADDR, &address(3, 0, 0, &ip)), GAINED);
        assert!(!ways.are_there());
        assert_eq!(ways.take(RTM_NEWLINK, &link(3, UP)), GAINED);
        assert!(ways.are_there() && ways.keep(ip.into()) && ways.leads_out().is_none());
        assert_eq!(ways.take(RTM_NEWROUTE, &route(3, 600)), GAINED);
        assert_eq!(ways.leads_out(), Some("wlan0"));
        for _ in 0..3 {
            assert_eq!(ways.take(RTM_NEWLINK, &link(3, UP)), NOTHING);
            assert_eq!(ways.take(RTM_NEWADDR, &address(3, 0, 0, &ip)), NOTHING);
            assert_eq!(ways.take(RTM_NEWROUTE, &route(3, 600)), NOTHING);
        }
        assert_eq!(ways.take(RTM_NEWLINK, &link(3, 0)), LOST);
        assert!(!ways.are_there() && ways.leads_out().is_none());
        assert!(ways.keep(ip.into()), "it may be back before the connection is dead");
        assert_eq!(ways.take(RTM_NEWLINK, &link(3, UP)), GAINED);
        assert_eq!(ways.take(RTM_NEWROUTE, &route(3, 600)), GAINED, "it went with the interface");
        assert_eq!(ways.take(RTM_DELADDR, &address(3, 0, 0, &ip)), LOST);
        assert!(!ways.keep(ip.into()));
        assert_eq!(ways.take(RTM_DELLINK, &link(3, 0)), LOST);
    }

    #[test]
    fn what_is_not_for_others_is_no_way() {
        let mut ways = Ways::default();
        let (link_local, loopback) = (253, UP | 8);
        assert_eq!(ways.take(RTM_NEWLINK, &link(1, loopback)), None);
        assert_eq!(ways.take(RTM_NEWADDR, &address(3, link_local, 0, &[169, 254, 1, 1])), None);
        assert_eq!(ways.take(RTM_NEWADDR, &address(3, 0, 0x40, &[7; 16])), NOTHING, "tentative");
        assert_eq!(ways.take(RTM_NEWADDR, &address(3, 0, 0x80, &[7; 16])), GAINED, "now it is sure");
        assert_eq!(ways.take(RTM_NEWROUTE, &[2, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]), None, "not everywhere");
        for kind in 0..30 {
            for length in 0..40 {
                ways.take(kind, &[0xff; 40][..length]); // nonsense is left out
            }
        }
    }

    #[test]
    fn the_best_default_route_with_carrier_counts() {
        let mut ways = Ways::default();
        for (index, flags, metric) in [(2, 1, 100), (3, UP, 700), (4, UP, 600)] {
            ways.take(RTM_NEWLINK, &link(index, flags));
            ways.take(RTM_NEWROUTE, &route(index, metric));
        }
        let link = ways.routes.iter().find(|r| ways.carries(r.1)).map(|r| r.1);
        assert_eq!(link, Some(4));
    }

    #[test]
    fn a_datagram_holds_several_messages() {
        let mut bytes = Vec::new();
        for (kind, body) in [(RTM_NEWLINK, link(3, UP)), (RTM_NEWADDR, address(3, 0, 0, &[1, 2, 3, 4]))] {
            bytes.extend(((16 + body.len()) as u32).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(&body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        assert_eq!(messages(&bytes).map(|m| m.0).collect::<Vec<_>>(), [RTM_NEWLINK, RTM_NEWADDR]);
        assert_eq!(messages(&bytes[..bytes.len() - 8]).count(), 1, "cut short");
        assert_eq!(messages(&[0; 64]).count(), 0);
    }

    #[tokio::test]
    async fn the_kernel_answers() {
        let netlink = Netlink::open().await.unwrap();
        // A machine without any network has nothing; of one that has, all is known by name.
        let ways = netlink.ways();
        assert!(ways.links.values().all(|l| !l.name.is_empty()), "{ways:?}");
        let listed = std::fs::read_dir("/sys/class/net").unwrap().count();
        assert!(ways.links.len() < listed.max(1), "all but the loopback: {ways:?}");
    }
}
