//! One connection to the broker, from the first packet to the last.

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jukebox_core::homeassistant::{PREFIX, STATUS};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{
    ConnectReturnCode, DisconnectReasonCode, LastWill, LastWillProperties, Packet, PubAckReason, Publish,
    PublishProperties, RetainForwardRule, SubscribeFilter,
};
use rumqttc::{
    AckMode, AsyncClient, ClientError, ConnectionError, EventLoop, MqttOptions, PersistedAckMode, PersistedSession,
    PublishNoticeError, PublishOptions, PublishResult, SessionStore, SessionStoreError, SessionStoreKey, StateError,
    Transport,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::slate::{Next, Shared, Waiting};
use super::{AckToken, Command, Down, Event, Pace, ReplyTo, Settings, random};
use crate::fetch::{Fault, classify};

/// Unacknowledged packets in each direction.
const WINDOW: u16 = 16;
/// Places of the inbox that messages of QoS 0 leave free.
const RESERVE: usize = WINDOW as usize + 8;
/// Told to the broker, which drops larger ones.
const MAX_PACKET: u32 = 64 << 10;
/// How long the broker keeps session and commands while the player is away.
const SESSION_S: u32 = 7 * 86_400;
/// TCP, TLS and the broker's hello together; 3G needs more than the usual 5 s.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// An acknowledgement that takes longer means that the connection is worth nothing.
const ACK_WITHIN: Duration = Duration::from_secs(20);
/// How often the ping to ourselves is sent until it is seen.
const BORDER_EVERY: Duration = Duration::from_secs(5);
/// A gap that is shorter is no news.
const WILL_DELAY_S: u32 = 10;
/// Begins every nonce of ours, so that a ping of an earlier connection is not taken for somebody's.
const BORDER: &str = "{\"nonce\":\"border-";

/// Name of the user property of `online` that tells one process of a name from another. Not every broker says who took a
/// connection away.
const SIGNATURE: &str = "boot";

/// Lives as long as the connection, and says why it ended, and whether the broker had taken us.
pub(super) async fn connection(
    number: u64,
    settings: &Settings,
    pace: Pace,
    shared: &Arc<Shared>,
    inbox: &mpsc::Sender<Event>,
) -> (Down, bool) {
    shared.begin(number);
    let (client, events) = AsyncClient::builder(options(settings, pace, shared)).capacity(WINDOW.into()).build();
    let link = Link { number, shared: shared.clone(), inbox: inbox.clone() };
    let found = Arc::<Mutex<Found>>::default();
    let (up, is_up) = watch::channel(false);
    let mut poll = JoinSet::new(); // aborts when dropped
    let all = format!("jukebox/1/{}/all/command/", settings.site);
    let listener =
        Listener { link: link.clone(), own: format!("{}/command/", shared.prefix), all, found: found.clone() };
    poll.spawn(listener.run(events, up, client.clone()));
    let met = is_up.clone();
    let work = link.work(&client, is_up, &found);
    let why = tokio::select! {
        biased; // the poll task knows the reason best
        end = poll.join_next() => match end {
            Some(Ok(why)) => why,
            // A panic there was reported by its hook.
            _ => Down::Protocol("the connection's task ended".into()),
        },
        () = shared.cut.notified() => Down::Link(Fault::Route),
        end = work => match end {
            // What the poll task has to say about it may be a moment away.
            Down::Link(Fault::Reset) => match timeout(Duration::from_millis(100), poll.join_next()).await {
                Ok(Some(Ok(why))) => why,
                _ => Down::Link(Fault::Reset),
            },
            why => why,
        },
    };
    let met = *met.borrow();
    (why, met)
}

/// Connects, and says goodbye at once. What the broker kept for the player stays there: nothing is acknowledged.
pub(super) async fn login(settings: &Settings) -> Result<(), Down> {
    let shared = Arc::new(Shared::new(settings.prefix()));
    let (client, mut events) =
        AsyncClient::builder(options(settings, Pace::default(), &shared)).capacity(WINDOW.into()).build();
    let mut inside = false;
    loop {
        match events.poll().await {
            Ok(rumqttc::Event::Incoming(Packet::ConnAck(_))) => {
                inside = true;
                client.disconnect().await.map_err(gone)?;
            }
            Ok(_) => {}
            // The goodbye is out, or the broker hung up on it.
            Err(_) if inside => return Ok(()),
            Err(e) => return Err(down(&e)),
        }
    }
}

/// What the listener found for the other half.
#[derive(Default)]
struct Found {
    /// Payload of our last ping.
    ping: Option<Bytes>,
    /// It came back.
    border: bool,
    /// Who said `online` last.
    online: Option<String>,
}

fn lock(found: &Mutex<Found>) -> MutexGuard<'_, Found> {
    // Nothing under the lock panics half-way through a change.
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that polls the event loop: it must never wait for anything of ours.
struct Listener {
    link: Link,
    own: String,
    all: String,
    found: Arc<Mutex<Found>>,
}

impl Listener {
    async fn run(self, mut events: EventLoop, up: watch::Sender<bool>, client: AsyncClient) -> Down {
        loop {
            match events.poll().await {
                Ok(rumqttc::Event::Incoming(Packet::ConnAck(_))) => {
                    up.send_replace(true);
                }
                Ok(rumqttc::Event::Incoming(Packet::Publish(p))) => {
                    if let Err(why) = self.take(p, &client) {
                        return why;
                    }
                }
                Ok(_) => {}
                Err(e) => return down(&e),
            }
        }
    }

    fn take(&self, p: Publish, client: &AsyncClient) -> Result<(), Down> {
        let ack = AckToken { connection: self.link.number, ack: client.prepare_ack(&p) };
        let topic = String::from_utf8_lossy(&p.topic);
        let (all, verb) = match (topic.strip_prefix(&self.own), topic.strip_prefix(&self.all)) {
            (Some(verb), _) => (false, verb),
            (_, Some(verb)) => (true, verb),
            _ => {
                if topic == STATUS && &p.payload[..] == b"online" {
                    self.link.shared.describe_again();
                }
                if topic == format!("{}/availability", self.link.shared.prefix) && &p.payload[..] == b"online" {
                    let mut properties = p.properties.unwrap_or_default().user_properties.into_iter();
                    lock(&self.found).online = properties.find(|(name, _)| name == SIGNATURE).map(|(_, who)| who);
                }
                self.link.shared.ack(ack);
                return Ok(());
            }
        };
        let backlog = {
            let mut found = lock(&self.found);
            if !all && verb == "ping" && p.payload.starts_with(BORDER.as_bytes()) {
                found.border |= found.ping.as_ref() == Some(&p.payload);
                self.link.shared.ack(ack);
                return Ok(());
            }
            !found.border
        };
        let properties = p.properties.unwrap_or_default();
        let command = Command {
            verb: verb.into(),
            payload: p.payload,
            reply_to: ReplyTo { topic: properties.response_topic, correlation: properties.correlation_data },
            retained: p.retain,
            backlog,
            all,
            expires: properties.message_expiry_interval.map(|s| Instant::now() + Duration::from_secs(s.into())),
            ack,
        };
        // Only messages of QoS 1 are limited by the window: the others must not take their places.
        if p.qos == QoS::AtMostOnce && self.link.inbox.capacity() <= RESERVE {
            tracing::debug!(topic = %topic, "dropped: QoS 0, and the inbox is nearly full");
            return Ok(());
        }
        self.link.inbox.try_send(Event::Command(command)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Down::Overrun,
            mpsc::error::TrySendError::Closed(_) => Down::Stopped,
        })
    }
}

/// What both halves of a connection know.
#[derive(Clone)]
struct Link {
    number: u64,
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Event>,
}

/// The event that is on the way: its key, and why it is refused for ever, if it is.
type OnTheWay = Pin<Box<dyn Future<Output = Result<(u64, Option<String>), Down>> + Send>>;

impl Link {
    async fn work(&self, client: &AsyncClient, up: watch::Receiver<bool>, found: &Mutex<Found>) -> Down {
        match self.try_work(client, up, found).await {
            Ok(()) => Down::Stopped,
            Err(why) => why,
        }
    }

    async fn try_work(
        &self,
        client: &AsyncClient,
        mut up: watch::Receiver<bool>,
        found: &Mutex<Found>,
    ) -> Result<(), Down> {
        let connected = tokio::select! {
            connected = async { up.wait_for(|up| *up).await.is_ok() } => connected,
            () = self.shared.stopping() => return Ok(()),
        };
        if !connected {
            // The poll task ended, and says why.
            return pending().await;
        }
        self.subscribe(client).await?;
        if self.shared.is_taken(lock(found).online.take()) {
            return Err(Down::NameTaken);
        }
        while let Some((suffix, payload)) = self.shared.next_state() {
            self.say(client, &suffix, payload).await?;
        }
        let online = self.availability(client, "online").await?;
        self.shared.said_online();
        within(ACK_WITHIN, online.wait_async()).await?.map_err(lost)?;
        self.inbox.send(Event::Up).await.map_err(|_| Down::Stopped)?;

        let mut pings = interval(BORDER_EVERY);
        let mut on_the_way: Option<OnTheWay> = None;
        loop {
            while let Some(next) = self.shared.next(self.number) {
                match next {
                    Next::Reply(to, payload) => self.reply(client, to, payload).await?,
                    Next::Ack(ack) => client.manual_ack(ack).await.map_err(gone)?,
                    Next::State(suffix, payload) => self.say(client, &suffix, payload).await?,
                }
            }
            if self.shared.is_stopping() {
                return self.part(client).await;
            }
            if on_the_way.is_none()
                && let Some(event) = self.shared.front_event()
            {
                on_the_way = Some(self.send(client, event).await?);
            }
            let border = lock(found).border;
            tokio::select! {
                () = self.shared.wake.notified() => {}
                verdict = async { match &mut on_the_way { Some(v) => v.await, None => pending().await } } => {
                    on_the_way = None;
                    self.settle(verdict?).await?;
                }
                _ = pings.tick(), if !border => self.ping(client, found).await?,
            }
        }
    }

    /// Always, also when the session was kept: cheap, and it cures a broker that lost the subscription.
    async fn subscribe(&self, client: &AsyncClient) -> Result<(), Down> {
        let prefix = &self.shared.prefix;
        // Asked first and at QoS 0, so that what is retained there is here before the other SUBACK.
        let availability = SubscribeFilter {
            nolocal: true,
            ..SubscribeFilter::new(format!("{prefix}/availability"), QoS::AtMostOnce)
        };
        let site = prefix.rsplit_once('/').map_or("", |(site, _)| site);
        let commands = [format!("{prefix}/command/#"), format!("{site}/all/command/#")].map(|path| SubscribeFilter {
            // A retained command must be told from others also when it is published now, and old ones must not come at all.
            preserve_retain: true,
            retain_forward_rule: RetainForwardRule::Never,
            ..SubscribeFilter::new(path, QoS::AtLeastOnce)
        });
        let mut asked = vec![availability];
        if self.shared.describes() {
            asked.push(SubscribeFilter::new(STATUS, QoS::AtMostOnce));
        }
        let asked = client.subscribe_many_tracked(asked).await.map_err(gone)?;
        let subscribed = client.subscribe_many_tracked(commands).await.map_err(gone)?;
        // The library does not keep the order of SUBSCRIBE and PUBLISH: both must be acknowledged before anything is said.
        for subscribed in [asked, subscribed] {
            let done = within(ACK_WITHIN, subscribed.wait_completion_async()).await?;
            done.map_err(|e| Down::Protocol(e.to_string()))?;
        }
        Ok(())
    }

    async fn say(&self, client: &AsyncClient, suffix: &str, payload: Bytes) -> Result<(), Down> {
        let retained = PublishOptions::new(QoS::AtLeastOnce).retained();
        // Home Assistant's topics are its own.
        let topic =
            if suffix.starts_with(PREFIX) { suffix.to_owned() } else { format!("{}/{suffix}", self.shared.prefix) };
        client.publish(topic, payload, retained).await.map_err(gone)
    }

    async fn availability(&self, client: &AsyncClient, what: &'static str) -> Result<rumqttc::PublishNotice, Down> {
        let signature = (SIGNATURE.to_owned(), self.shared.signature(self.number));
        let properties = PublishProperties { user_properties: vec![signature], ..PublishProperties::default() };
        let retained = PublishOptions::new(QoS::AtLeastOnce).retained().properties(properties);
        client.publish_tracked(format!("{}/availability", self.shared.prefix), what, retained).await.map_err(gone)
    }

    async fn reply(&self, client: &AsyncClient, to: ReplyTo, payload: Bytes) -> Result<(), Down> {
        let properties = PublishProperties { correlation_data: to.correlation, ..PublishProperties::default() };
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
        let topic = to.topic.unwrap_or_else(|| format!("{}/reply", self.shared.prefix));
        match client.publish(topic, payload, options).await {
            Err(ClientError::InvalidRequest(_)) => {
                tracing::warn!("mqtt: a reply to an invalid topic was dropped");
                Ok(())
            }
            sent => sent.map_err(gone),
        }
    }

    /// Sends an event; the future is done when the broker has it.
    async fn send(&self, client: &AsyncClient, event: Waiting) -> Result<OnTheWay, Down> {
        let Waiting { key, kind, payload } = event;
        let topic = format!("{}/event/{kind}", self.shared.prefix);
        let sent = match client.publish_tracked(topic, payload, PublishOptions::new(QoS::AtLeastOnce)).await {
            Err(ClientError::InvalidRequest(_)) => {
                return Ok(Box::pin(async move { Ok((key, Some(format!("`{kind}` is no topic")))) }));
            }
            sent => sent.map_err(gone)?,
        };
        Ok(Box::pin(async move {
            match within(ACK_WITHIN, sent.wait_async()).await?.map_err(lost)? {
                PublishResult::Qos1(ack) => match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok((key, None)),
                    // Passes: comes again after the back-off.
                    PubAckReason::QuotaExceeded => Err(Down::Unavailable),
                    // Never passes: the rest must not wait for it.
                    reason => Ok((key, Some(format!("{reason:?}")))),
                },
                _ => Ok((key, None)),
            }
        }))
    }

    async fn settle(&self, (key, refused): (u64, Option<String>)) -> Result<(), Down> {
        if let Some(why) = refused {
            tracing::warn!("mqtt: the broker will never take event {key}: {why}");
        }
        self.shared.event_done(key);
        self.inbox.send(Event::Delivered { key }).await.map_err(|_| Down::Stopped)
    }

    async fn ping(&self, client: &AsyncClient, found: &Mutex<Found>) -> Result<(), Down> {
        let nonce = Bytes::from(format!("{BORDER}{:016x}\"}}", random()));
        lock(found).ping = Some(nonce.clone());
        // Not worth keeping for a player that went away again.
        let properties = PublishProperties { message_expiry_interval: Some(60), ..PublishProperties::default() };
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
        client.publish(format!("{}/command/ping", self.shared.prefix), nonce, options).await.map_err(gone)
    }

    async fn part(&self, client: &AsyncClient) -> Result<(), Down> {
        let offline = self.availability(client, "offline").await?;
        // The caller has a deadline for all of it.
        offline.wait_async().await.map_err(lost)?;
        client.disconnect().await.map_err(gone)?;
        // The poll task ends when the packet is out.
        pending().await
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Down> {
    timeout(limit, work).await.map_err(|_| Down::Silent)
}

/// The event loop is gone; it says why.
fn gone(_: ClientError) -> Down {
    Down::Link(Fault::Reset)
}

fn lost(_: PublishNoticeError) -> Down {
    Down::Link(Fault::Reset)
}

fn down(e: &ConnectionError) -> Down {
    use ConnectReturnCode as C;
    use DisconnectReasonCode as D;
    match e {
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => match code {
            C::BadUserNamePassword | C::NotAuthorized | C::Banned | C::BadClientId | C::ClientIdentifierNotValid => {
                Down::Login
            }
            C::ServiceUnavailable | C::ServerUnavailable | C::ServerBusy | C::QuotaExceeded => Down::Unavailable,
            code => Down::Protocol(format!("the broker refuses: {code:?}")),
        },
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => match reason_code {
            D::SessionTakenOver => Down::NameTaken,
            D::NotAuthorized => Down::Login,
            D::ServerBusy | D::ServerShuttingDown | D::QuotaExceeded | D::AdministrativeAction => Down::Unavailable,
            D::KeepAliveTimeout => Down::Silent,
            code => Down::Protocol(format!("the broker hangs up: {code:?}")),
        },
        ConnectionError::Timeout(_) | ConnectionError::MqttState(StateError::AwaitPingResp) => Down::Silent,
        ConnectionError::MqttState(StateError::ConnectionAborted) => Down::Link(Fault::Reset),
        ConnectionError::RequestsDone => Down::Stopped,
        e => match classify(e) {
            Fault::Protocol => Down::Protocol(e.to_string()),
            fault => Down::Link(fault),
        },
    }
}

fn options(settings: &Settings, pace: Pace, shared: &Arc<Shared>) -> MqttOptions {
    let mut o = MqttOptions::new(&settings.player, (settings.host.as_str(), settings.port));
    if let Some(tls) = &settings.tls {
        let mut tls = tls.clone();
        tls.alpn_protocols.clear();
        // A resumed session would keep the client certificate that it began with.
        tls.resumption = rustls::client::Resumption::disabled();
        o.set_transport(Transport::tls_with_config(tls.into()));
    }
    let user = if settings.user.is_empty() { &settings.player } else { &settings.user };
    if settings.password.is_empty() {
        o.set_username(user);
    } else {
        o.set_credentials(user, settings.password.clone());
    }
    let (dialer, host, port) = (settings.dialer.clone(), settings.host.clone(), settings.port);
    let shared = shared.clone();
    let late = LastWillProperties { delay_interval: Some(WILL_DELAY_S), ..no_properties() };
    let availability = format!("{}/availability", settings.prefix());
    o.set_keep_alive(pace.keep_alive_s)
        .set_connect_timeout(CONNECT_WITHIN)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_S))
        .set_session_store(EmptySession)
        .set_ack_mode(AckMode::Manual)
        .set_receive_maximum(Some(WINDOW))
        // The default is a table of 65,536 places: megabytes.
        .set_outgoing_inflight_upper_limit(WINDOW)
        .set_max_packet_size(Some(MAX_PACKET))
        .set_last_will(LastWill::new(availability, "offline", QoS::AtLeastOnce, true, Some(late)))
        .set_socket_connector(move |_, _| {
            // Not the address that the library makes of both: it has no brackets for IPv6.
            let (dialer, host, shared) = (dialer.clone(), host.clone(), shared.clone());
            async move {
                let stream = dialer.dial_any(&host, port).await?;
                shared.set_local(stream.local_addr().ok().map(|a| a.ip()));
                Ok(stream)
            }
        });
    o
}

fn no_properties() -> LastWillProperties {
    LastWillProperties {
        delay_interval: None,
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    }
}

/// Our half of a session that the broker kept. Without one the client would refuse to connect for ever; and ours is truly
/// empty: nothing goes out above QoS 1, and what was not acknowledged is on the slate or in the outbox.
#[derive(Debug)]
struct EmptySession;

type Stored<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

impl SessionStore for EmptySession {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> Stored<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().into(),
            clean_start: false,
            session_expiry_interval: Some(SESSION_S),
            outgoing_inflight_upper_limit: Some(WINDOW),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async move { Ok(Some(session)) })
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> Stored<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> Stored<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
