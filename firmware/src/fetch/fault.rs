//! Why a download failed, and whose fault it is.

use std::error::Error as StdError;
use std::io;

use jukebox_core::reason::{Action, Reason};

use crate::dial::{NotResolved, ProxyFault};
use crate::store::ObjectError;

/// Why a download failed. Text is for logs; decisions look at the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// The origin's name is not resolved.
    #[error("the name is not resolved")]
    Dns,
    /// No route to the origin.
    #[error("no route")]
    Route,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// The connection broke.
    #[error("connection broken")]
    Reset,
    /// Not done within the deadline.
    #[error("no answer in time")]
    Timeout,
    /// The origin's certificate, or TLS itself.
    #[error("TLS: {0}")]
    Tls(TlsFault),
    /// The proxy.
    #[error("{0}")]
    Proxy(ProxyFault),
    /// An answer that is not HTTP.
    #[error("not HTTP")]
    Protocol,
    /// A status that is no answer to the request.
    #[error("HTTP status {0}")]
    Status(u16),
    /// Sent elsewhere: the library never does that, login pages do.
    #[error("redirected")]
    Redirect,
    /// A page for people where bytes were wanted.
    #[error("HTML instead of the object")]
    Portal,
    /// A range answered by the whole, or by another range.
    #[error("another range than wanted")]
    WrongRange,
    /// More or fewer bytes than wanted.
    #[error("another length than wanted")]
    WrongLength,
    /// Bytes that are not what their name says.
    #[error("wrong digest ({})", if *.others_verify { "other objects verify" } else { "nothing there verifies" })]
    WrongDigest {
        /// The origin was asked again for something that was right before, and that still is.
        others_verify: bool,
    },
    /// 404 or 410 of an origin that has a root; from every origin, when [`super::Fetcher::fetch`] says so.
    #[error("not found")]
    NotFound,
    /// A folder that is not mounted: nothing is there, not even the root.
    #[error("the folder is not mounted")]
    NotMounted,
    /// The card cannot take it.
    #[error("{0}")]
    Store(ObjectError),
}

/// What TLS objects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TlsFault {
    /// Not signed by the office's CA.
    #[error("the certificate is not from the office's CA")]
    Issuer,
    /// The certificate has expired, or the clock is ahead.
    #[error("the certificate has expired")]
    Expired,
    /// The certificate is not valid yet, or the clock is behind.
    #[error("the certificate is not valid yet")]
    NotYet,
    /// The certificate is for another name.
    #[error("the certificate is for another name")]
    Name,
    /// Our certificate was not accepted, no common version, garbage, ...
    #[error("the handshake failed")]
    Handshake,
}

impl Fault {
    /// The row of the table of reasons.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Dns => Reason::Dns,
            Self::Route => Reason::NoRoute,
            Self::Refused | Self::Reset => Reason::Refused,
            Self::Timeout => Reason::Timeout,
            Self::Tls(_) => Reason::Tls,
            Self::Proxy(ProxyFault::Away) => Reason::Proxy,
            Self::Proxy(ProxyFault::Login) => Reason::ProxyLogin,
            Self::Proxy(ProxyFault::NoWay(_)) => Reason::ProxyNoWay,
            // 511: network authentication required (RFC 6585).
            Self::Status(511) | Self::Redirect | Self::Portal => Reason::Portal,
            Self::Status(_) | Self::Protocol | Self::NotMounted => Reason::Office,
            Self::WrongRange | Self::WrongLength | Self::WrongDigest { others_verify: false } => Reason::Lying,
            Self::WrongDigest { others_verify: true } => Reason::Damaged,
            Self::NotFound => Reason::Missing,
            Self::Store(why) => why.reason(),
        }
    }

    /// The link or the origin: wait. Such a fault never costs an entry its place.
    pub fn is_link(self) -> bool {
        self.reason().action() == Action::Wait
    }

    /// The track: skip it, with the reason.
    pub fn is_track(self) -> bool {
        self.reason().action() == Action::Skip
    }
}

/// Finds the fault in an error and all that it was made from.
pub(crate) fn classify(error: &(dyn StdError + 'static)) -> Fault {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(fault) = one(e) {
            return fault;
        }
        next = e.source();
    }
    Fault::Protocol
}

fn one(e: &(dyn StdError + 'static)) -> Option<Fault> {
    if e.is::<NotResolved>() {
        return Some(Fault::Dns);
    }
    if let Some(fault) = e.downcast_ref::<ProxyFault>() {
        return Some(Fault::Proxy(*fault));
    }
    if let Some(e) = e.downcast_ref::<rustls::Error>() {
        return Some(Fault::Tls(tls(e)));
    }
    if let Some(e) = e.downcast_ref::<hyper::Error>() {
        if e.is_timeout() {
            return Some(Fault::Timeout);
        }
        if e.is_incomplete_message() || e.is_closed() || e.is_canceled() {
            return Some(Fault::Reset);
        }
        if !e.is_parse() && !e.is_user() {
            // A stream or a connection of HTTP/2 that the other side ended: whoever did says no more than that.
            let cause = e.source().map(classify).filter(|f| *f != Fault::Protocol);
            return Some(cause.unwrap_or(Fault::Reset));
        }
    }
    let e = e.downcast_ref::<io::Error>()?;
    // `source` of an `io::Error` passes over the error that it wraps.
    match e.get_ref().map(|inner| classify(inner)) {
        Some(fault) if fault != Fault::Protocol => Some(fault),
        _ => kind(e.kind()),
    }
}

pub(super) fn kind(kind: io::ErrorKind) -> Option<Fault> {
    use io::ErrorKind as K;
    match kind {
        K::ConnectionRefused => Some(Fault::Refused),
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof | K::NotConnected => {
            Some(Fault::Reset)
        }
        K::TimedOut => Some(Fault::Timeout),
        K::NetworkUnreachable | K::HostUnreachable | K::NetworkDown | K::AddrNotAvailable => Some(Fault::Route),
        _ => None,
    }
}

fn tls(e: &rustls::Error) -> TlsFault {
    use rustls::CertificateError as C;
    match e {
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => TlsFault::Expired,
        rustls::Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => TlsFault::NotYet,
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => TlsFault::Name,
        rustls::Error::InvalidCertificate(_) => TlsFault::Issuer,
        _ => TlsFault::Handshake,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_found_however_deep_it_lies() {
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let deep = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, expired));
        assert_eq!(classify(&deep), Fault::Tls(TlsFault::Expired));
        assert_eq!(classify(&io::Error::from(io::ErrorKind::ConnectionRefused)), Fault::Refused);
        let refused = io::Error::other(io::Error::other(ProxyFault::Login));
        assert_eq!(classify(&refused), Fault::Proxy(ProxyFault::Login));
        assert_eq!(classify(&io::Error::other("x")), Fault::Protocol);
    }

    #[test]
    fn only_what_is_missing_or_damaged_everywhere_costs_a_track() {
        let track = [Fault::NotFound, Fault::WrongDigest { others_verify: true }];
        assert!(track.iter().all(|f| f.is_track() && !f.is_link()));
        let link = [
            Fault::Dns,
            Fault::Tls(TlsFault::Expired),
            Fault::Status(503),
            Fault::Proxy(ProxyFault::Login),
            Fault::Proxy(ProxyFault::NoWay(403)),
            Fault::Status(401),
            Fault::Portal,
            Fault::Redirect,
            Fault::WrongRange,
            Fault::WrongDigest { others_verify: false },
            Fault::NotMounted,
        ];
        assert!(link.iter().all(|f| f.is_link() && !f.is_track()));
        assert!(!Fault::Store(ObjectError::Full).is_link() && !Fault::Store(ObjectError::Full).is_track());
    }
}
