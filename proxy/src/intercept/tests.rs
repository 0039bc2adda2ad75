#![allow(clippy::unwrap_used)]

use super::*;
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(10);

fn name(host: &str, node_id: Option<i32>) -> Name {
    let address = HostPort::new(host, 9092);
    Name { address, node_id }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A connection that nobody redirected, as the proxy accepts it, and whom it comes from.
async fn accepted() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, peer) = listener.accept().await.unwrap();
    (client, accepted, peer)
}

#[test]
fn a_broker_is_told_by_its_address_unless_several_share_it() {
    let mut brokers = Brokers::default();
    let (one, both, server) = ("10.0.0.1:9092", "10.0.0.9:9092", "10.0.0.4:9092");
    brokers.add(&name("one", Some(1)), vec![address(one), address(both)]);
    brokers.add(&name("two", Some(2)), vec![address("[::ffff:10.0.0.9]:9092")]);
    brokers.add(&name("servers", None), vec![address(one), address(server)]);
    let known = |at: &str| {
        let broker = brokers.0.get(&address(at)).unwrap();
        (broker.name.host.as_str(), broker.node_id)
    };
    // Found by the bootstrap servers' name as well, and still that broker.
    assert_eq!(known(one), ("one", Some(1)));
    assert_eq!(known(both), ("one", None));
    assert_eq!(known(server), ("servers", None));
    assert_eq!(brokers.0.len(), 3);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_any_more_keeps_its_addresses() {
    let destinations = Destinations::default();
    let gone = || name("does.not.exist.invalid", Some(3));
    let mut brokers = Brokers::default();
    brokers.add(&gone(), vec![address("10.0.0.3:9092")]);
    destinations.publish(brokers.0, 0);
    let found = destinations
        .look_up(vec![gone(), name("127.0.0.1", Some(1))])
        .await;
    let expected = |at: &str| found.get(&address(at)).and_then(|broker| broker.node_id);
    assert_eq!(expected("10.0.0.3:9092"), Some(3));
    assert_eq!(expected("127.0.0.1:9092"), Some(1));
}

#[test]
fn a_broker_that_the_cluster_does_not_name_for_long_has_gone() {
    let destinations = Destinations::default();
    destinations.polled(&[2, 3]);
    destinations.polled(&[3]);
    let now = Instant::now();
    let gone = |after| {
        let later = now + after;
        [1, 2, 3].map(|node_id| destinations.has_gone(node_id, later))
    };
    assert_eq!(gone(Duration::from_secs(60)), [false, false, false]);
    assert_eq!(gone(GONE_AFTER), [false, false, true]);
}

#[tokio::test]
async fn what_is_not_known_is_looked_for_before_it_is_refused() {
    let destinations = Arc::new(Destinations::default());
    let (_client, accepted, peer) = accepted().await;
    let local = accepted.local_addr().unwrap();
    let asking = Arc::clone(&destinations);
    let asked = tokio::spawn(async move {
        let first = asking.of(&accepted, peer, local.port(), PATIENCE).await;
        let elsewhere = asking.of(&accepted, peer, 1, PATIENCE).await;
        (first, elsewhere, asking.of(&accepted, peer, 1, PATIENCE).await)
    });
    destinations.wake.notified().await;
    // What was looked up before the question does not answer it.
    destinations.publish(HashMap::new(), 0);
    assert!(!asked.is_finished());
    destinations.publish(HashMap::new(), 1);
    destinations.wake.notified().await;
    destinations.publish(HashMap::new(), 2);
    destinations.wake.notified().await;
    let mut brokers = Brokers::default();
    brokers.add(&name("found", Some(7)), vec![local]);
    destinations.publish(brokers.0, 2);
    let (first, elsewhere, found) = asked.await.unwrap();
    assert!(matches!(first, Err(DestinationError::NotRedirected(at)) if at == local));
    assert!(matches!(elsewhere, Err(DestinationError::NoBroker(at)) if at == local));
    let expected = Destination {
        address: local,
        node_id: Some(7),
    };
    assert_eq!(found.unwrap(), expected);
    assert_eq!(destinations.name_of(local), Some(HostPort::new("found", 9092)));
}

#[tokio::test]
async fn a_connection_of_the_proxy_to_itself_is_refused_while_it_lasts() {
    let destinations = Destinations::default();
    let (client, accepted, peer) = accepted().await;
    let local = accepted.local_addr().unwrap();
    let mut brokers = Brokers::default();
    brokers.add(&name("self", Some(1)), vec![local]);
    destinations.publish(brokers.0, 0);
    let own = destinations.own(&client).unwrap();
    let refused = destinations.of(&accepted, peer, local.port(), PATIENCE).await;
    assert!(matches!(refused, Err(DestinationError::Ours(at)) if at == local));
    drop(own);
    let taken = destinations.of(&accepted, peer, local.port(), PATIENCE).await;
    assert_eq!(taken.unwrap().node_id, Some(1));
}
