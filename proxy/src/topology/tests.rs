#![allow(clippy::unwrap_used)]

use super::*;
use crate::session::testing::own_address;
use teeline_config::{Names, Ports};
use teeline_runtime::Health;

fn listen() -> Listen {
    let addressing = Addressing::Ports(Ports {
        node_port_count: 3,
        ..Ports::after(9091)
    });
    Listen {
        address: HostPort::new(own_address(), 0),
        addressing,
        ..Listen::default()
    }
}

/// Entrances by port; the listeners stay open as long as the sockets are held.
fn told(changes: &mut mpsc::Receiver<Change>) -> (Vec<(u16, Option<Entrance>)>, Vec<Change>) {
    let (mut told, mut held) = (Vec::new(), Vec::new());
    while let Ok(change) = changes.try_recv() {
        told.push(match &change {
            Change::Accept(bound) => (bound.listener.local_addr().unwrap().port(), Some(bound.entrance)),
            Change::Close(address) => (address.port(), None),
        });
        held.push(change);
    }
    (told, held)
}

fn node(node_id: i32) -> Option<Entrance> {
    Some(Entrance::Route(Route::Node(node_id)))
}

#[tokio::test]
async fn listeners_are_bound_before_any_broker_is_known() {
    let (topology, mut changes) = Topology::open("test", &listen()).unwrap();
    let (told, _held) = told(&mut changes);
    let nodes: Vec<_> = told
        .iter()
        .filter(|(port, _)| (9092..=9094).contains(port))
        .collect();
    assert_eq!(nodes, [&(9092, node(0)), &(9093, node(1)), &(9094, node(2))]);
    assert!(
        told.iter()
            .any(|(_, entrance)| *entrance == Some(Entrance::Route(Route::Bootstrap)))
    );
    assert_eq!(topology.listeners(), 4);
    let advertised = topology.advertise(1, "broker-1", 9092, Authority::Metadata);
    assert_eq!(advertised.unwrap().1, 9093);
    assert_eq!(topology.upstream_of(1), Some(HostPort::new("broker-1", 9092)));
    assert!(changes.try_recv().is_err());
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_hints_move_nothing() {
    let listen = listen();
    let taken = std::net::TcpListener::bind((listen.address.host.as_str(), 9094)).unwrap();
    let (topology, mut changes) = Topology::open("test", &listen).unwrap();
    assert!(topology.advertise(3, "b", 9092, Authority::Metadata).is_none());
    assert!(topology.advertise(-1, "b", 9092, Authority::Metadata).is_none());
    assert!(topology.advertise(0, "", -1, Authority::Metadata).is_none());
    assert!(topology.advertise(2, "b", 9092, Authority::Metadata).is_none());
    drop(taken);
    let _held = told(&mut changes).1;
    assert!(topology.advertise(2, "b", 9092, Authority::Hint).is_some());
    assert_eq!(told(&mut changes).0, [(9094, node(2))]);
    assert!(
        topology
            .advertise(2, "controller", 9093, Authority::Hint)
            .is_some()
    );
    assert_eq!(topology.upstream_of(2), Some(HostPort::new("b", 9092)));
    assert!(
        topology
            .advertise(2, "moved", 9092, Authority::Metadata)
            .is_some()
    );
    assert_eq!(topology.upstream_of(2), Some(HostPort::new("moved", 9092)));
    // What an answer of former servers says is told in our words, and teaches nothing.
    let former = |node_id| topology.advertise(node_id, "former", 9092, Authority::Former);
    assert!(former(2).is_some() && former(0).is_some());
    assert_eq!(topology.upstream_of(2), Some(HostPort::new("moved", 9092)));
    assert_eq!(topology.upstream_of(0), None);
}

#[tokio::test]
async fn a_proxy_that_stops_still_names_the_brokers_that_it_has_named_before() {
    let (topology, changes) = Topology::open("test", &listen()).unwrap();
    let told = topology.advertise(1, "b", 9092, Authority::Metadata);
    drop(changes);
    assert!(told.is_some());
    assert_eq!(topology.advertise(1, "b", 9092, Authority::Metadata), told);
    assert!(topology.advertise(2, "c", 9092, Authority::Metadata).is_none());
    assert_eq!(topology.listeners(), 0);
}

#[tokio::test]
async fn the_listener_of_a_broker_that_left_does_not_lead_to_who_has_its_address_now() {
    let (topology, _changes) = Topology::open("test", &listen()).unwrap();
    let tell = |node_id, host, authority| topology.advertise(node_id, host, 9092, authority).unwrap();
    tell(0, "a", Authority::Metadata);
    tell(1, "b", Authority::Metadata);
    tell(2, "b", Authority::Hint);
    assert_eq!(topology.upstream_of(1), Some(HostPort::new("b", 9092)));
    tell(2, "c", Authority::Metadata);
    // Brokers that change places.
    tell(0, "b", Authority::Metadata);
    assert_eq!(topology.upstream_of(1), None);
    tell(1, "a", Authority::Metadata);
    let places = [0, 1, 2].map(|node_id| topology.upstream_of(node_id).unwrap().host);
    assert_eq!(places, ["b", "a", "c"]);
}

#[tokio::test]
async fn a_new_plan_is_bound_before_clients_are_told_of_it() {
    let listen = listen();
    let (topology, mut changes) = Topology::open("test", &listen).unwrap();
    let held = told(&mut changes).1;
    topology.advertise(1, "b", 9092, Authority::Metadata).unwrap();
    let moved = |start| Listen {
        addressing: Addressing::Ports(Ports {
            node_port_start: start,
            node_port_count: 3,
            ..Ports::after(9091)
        }),
        ..listen.clone()
    };
    let taken = std::net::TcpListener::bind((listen.address.host.as_str(), 9204)).unwrap();
    // Broker 1 is known, so its listener is needed; that of broker 2 is not.
    assert!(topology.prepare(&moved(9203)).is_err());
    let prepared = topology.prepare(&moved(9202)).unwrap();
    let advertised = topology.advertise(1, "b", 9092, Authority::Metadata);
    assert_eq!(advertised.unwrap().1, 9093);
    topology.apply(prepared);
    let advertised = topology.advertise(1, "b", 9092, Authority::Metadata);
    assert_eq!(advertised.unwrap().1, 9203);
    let (told, _) = told(&mut changes);
    let expected = [
        (9202, node(0)),
        (9203, node(1)),
        (9092, None),
        (9093, None),
        (9094, None),
    ];
    assert_eq!(told, expected);
    drop((taken, held));
}

#[tokio::test]
async fn who_asks_for_an_unknown_broker_waits_until_it_is_known_or_the_cluster_has_no_such() {
    let (topology, _changes) = Topology::open("test", &listen()).unwrap();
    let asked = AtomicU64::new(0);
    let ask = || {
        asked.fetch_add(1, Ordering::Relaxed);
    };
    let answers = async {
        tokio::task::yield_now().await;
        topology.keep(|_| true);
        tokio::task::yield_now().await;
        topology.advertise(1, "b", 9092, Authority::Metadata).unwrap();
    };
    tokio::join!(topology.find(1, ask), answers);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let answers = async {
        for _ in 0..2 {
            tokio::task::yield_now().await;
            topology.keep(|_| true);
        }
    };
    tokio::join!(topology.find(2, ask), answers);
    assert_eq!(topology.upstream_of(2), None);
}

#[tokio::test]
async fn readiness_says_which_broker_cannot_be_presented_until_it_can_or_is_gone() {
    let listen = listen();
    let health = Health::new();
    let taken = std::net::TcpListener::bind((listen.address.host.as_str(), 9093)).unwrap();
    let (topology, _changes) = Topology::open("test", &listen).unwrap();
    topology.report_to(health.component("listeners/test"));
    let present = |node_id| {
        topology
            .advertise(node_id, "b", 9092, Authority::Metadata)
            .is_some()
    };
    assert!(present(0) && health.is_ready());
    assert!(!present(1) && !health.is_ready());
    let states = format!("{:?}", health.states());
    assert!(states.contains("of broker 1 cannot be bound"), "{states}");
    assert!(!present(7) && !health.is_ready());
    drop(taken);
    assert!(present(1) && !health.is_ready());
    topology.keep(|node_id| node_id != 7);
    assert!(health.is_ready());
    // A hint may be wrong, and nobody is kept from anything by it.
    assert!(topology.advertise(9, "b", 9092, Authority::Hint).is_none());
    assert!(health.is_ready());
}

#[tokio::test]
async fn names_lead_to_brokers_without_listeners_of_their_own() {
    let listen = Listen {
        addressing: Addressing::Names(Names {
            bootstrap_hosts: vec!["kafka.test".to_owned()],
            node_host: "b-{id}.kafka.test".parse().unwrap(),
            advertised_port: 443,
        }),
        ..listen()
    };
    let (topology, mut changes) = Topology::open("test", &listen).unwrap();
    let (told, _held) = told(&mut changes);
    assert_eq!(
        told.iter().map(|(_, entrance)| *entrance).collect::<Vec<_>>(),
        [Some(Entrance::ByName)]
    );
    let advertised = topology.advertise(7, "broker", 9092, Authority::Metadata);
    assert_eq!(advertised, Some(("b-7.kafka.test".to_owned(), 443)));
    assert!(changes.try_recv().is_err());
    assert!(
        topology
            .advertise(-1, "broker", 9092, Authority::Metadata)
            .is_none()
    );
    assert_eq!(topology.route_of("KAFKA.test."), Some(Route::Bootstrap));
    assert_eq!(topology.route_of("b-7.kafka.test"), Some(Route::Node(7)));
    assert_eq!(topology.route_of("b-x.kafka.test"), None);
}
