#![allow(clippy::unwrap_used)]

use super::*;
use teeline_config::AccessLog;

fn visit(observatory: &Arc<Observatory>, peer: &str, client_id: Option<&str>) -> Arrived {
    let visitor = Visitor {
        cluster: "test".into(),
        peer: peer.parse().unwrap(),
        node_id: Some(1),
        tls: false,
        subject: None,
    };
    let visit = Visit::new(observatory.next_connection_id(), visitor);
    if let Some(client_id) = client_id {
        visit.introduce(shown(client_id.as_bytes()));
    }
    observatory.arrives(visit)
}

#[test]
fn connections_are_listed_while_they_are_open_and_never_more_than_asked_for() {
    let observatory = Observatory::new(AccessLog::Off);
    let open: Vec<Arrived> = (0..50)
        .map(|port| visit(&observatory, &format!("192.0.2.7:{}", 1000 + port), None))
        .collect();
    let (shown, count) = observatory.open(10, |_| true);
    assert_eq!((shown.len(), count), (10, 50));
    let (shown, count) = observatory.open(10, |visit| visit.visitor.peer.port() == 1049);
    assert_eq!(
        (shown.first().unwrap().id, count),
        (open.last().unwrap().visit.id, 1)
    );
    drop(open);
    assert_eq!(observatory.open(10, |_| true).1, 0);
}

#[test]
fn a_trace_concerns_whom_it_names_and_ends_after_its_requests() {
    let observatory = Observatory::new(AccessLog::Off);
    let one = visit(&observatory, "192.0.2.7:1000", None);
    let mapped = visit(&observatory, "[::ffff:192.0.2.7]:1001", None);
    let other = visit(&observatory, "192.0.2.8:1000", None);
    let before = observatory.generation();
    let filter = Filter {
        address: Some("192.0.2.7".parse().unwrap()),
        client_id: Some("bad\nname".to_owned()),
        ..Filter::default()
    };
    let order = observatory.order(filter, 2, 60).unwrap();
    assert_ne!(observatory.generation(), before, "connections must look again");
    let concerned = |arrived: &Arrived| observatory.wishes(&arrived.visit).orders.len();
    assert_eq!(
        (concerned(&one), concerned(&mapped), concerned(&other)),
        (1, 1, 0)
    );
    assert!(order.filter.wants(Some(&*shown(b"bad\nname"))));
    assert!(!order.filter.wants(Some("good")) && !order.filter.wants(None));
    let now = std::time::Instant::now();
    assert!(order.take(now) && order.take(now) && !order.take(now));
    assert!(observatory.standing_orders().is_empty());
    assert_eq!(concerned(&one), 0);
}

#[test]
fn there_is_an_end_to_traces_at_the_same_time_and_to_their_time() {
    let observatory = Observatory::new(AccessLog::Off);
    for _ in 0..ORDERS_MAX {
        assert!(observatory.order(Filter::default(), 1, 60).is_some());
    }
    assert!(observatory.order(Filter::default(), 1, 60).is_none());
    assert_eq!(observatory.end_orders(|_| true), ORDERS_MAX);
    let over = observatory.order(Filter::default(), 1, 0).unwrap();
    assert!(!over.take(std::time::Instant::now()));
    assert!(observatory.standing_orders().is_empty());
}

#[test]
fn what_a_client_calls_itself_is_short_and_one_line() {
    assert_eq!(&*shown(b"producer-1"), "producer-1");
    assert_eq!(&*shown(b"a\nb\x1b[31m\"c\""), "a\\nb\\u{1b}[31m\\\"c\\\"");
    assert!(shown(&[b'x'; 30_000]).len() < 100);
    assert_eq!(&*shown(b"\xff"), "\u{fffd}");
}

#[test]
fn the_access_log_is_switched_for_connections_that_are_open_already() {
    let observatory = Observatory::new(AccessLog::Off);
    let one = visit(&observatory, "192.0.2.7:1000", None);
    assert!(!observatory.wishes(&one.visit).access);
    let before = observatory.generation();
    observatory.set_access(AccessLog::Requests);
    assert_ne!(observatory.generation(), before);
    assert!(observatory.wishes(&one.visit).access);
}
