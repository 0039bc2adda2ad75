//! Clients that come before the proxy knows the cluster.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use teeline_tests::programs::{Archive, ProxySettings};
use teeline_tests::raw::RawClient;
use teeline_tests::wait::{seconds, wait_until};
use teeline_tests::workdir::WorkDir;

use super::STAGE;

#[test]
fn a_client_that_knows_a_brokers_port_is_let_in_before_the_cluster_is_known_and_not_for_ever() {
    let work = WorkDir::create("early");
    // It takes connections and says nothing, so that the proxy knows no broker.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = silent.local_addr().unwrap().to_string();
    let mut settings = ProxySettings::new(work.path(), &upstream, &Archive::Directory(work.join("archive")));
    let main = &mut settings.document["clusters"][0];
    main["capture"]["enabled"] = json!(false);
    main["upstream"]["connect_timeout"] = json!("2s");
    let mut proxy = settings.launch();
    wait_until("the proxy to serve", seconds(20), || {
        proxy.process.assert_running();
        proxy.process.log().contains("serving")
    });
    // Broker 3's, by the default numbering.
    let mut client = TcpStream::connect(("127.0.0.1", settings.port(2 + 3))).unwrap();
    client.set_read_timeout(Some(seconds(20))).unwrap();
    let began = Instant::now();
    let end = client.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert!(began.elapsed() >= seconds(1), "it was not waited for");
    wait_until("the reason in the log", seconds(10), || {
        proxy.process.log().contains("the broker's address is not known")
    });
    proxy.process.terminate();
    proxy.process.wait_exit(seconds(30));
}

#[test]
fn a_client_that_came_before_the_cluster_was_known_is_served_once_it_is() {
    let work = WorkDir::create("early-served");
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = gate.local_addr().unwrap().to_string();
    let (open, opened) = mpsc::channel::<()>();
    thread::spawn(move || pass_once_told(&gate, &opened));
    let mut settings = ProxySettings::new(work.path(), &upstream, &Archive::Directory(work.join("archive")));
    let main = &mut settings.document["clusters"][0];
    main["capture"]["enabled"] = json!(false);
    main["upstream"]["connect_timeout"] = json!("30s");
    let mut proxy = settings.launch();
    wait_until("the proxy to serve", seconds(20), || {
        proxy.process.assert_running();
        proxy.process.log().contains("serving")
    });
    let id = u16::try_from(STAGE.source.node_ids()[0]).unwrap();
    let mut client = RawClient::connect(&format!("127.0.0.1:{}", settings.port(2 + id))).unwrap();
    client
        .0
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let kind = client.ask().map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::WouldBlock), "nobody knows that broker");
    open.send(()).unwrap();
    client.0.set_read_timeout(Some(seconds(30))).unwrap();
    client.receive().unwrap();
    proxy.process.terminate();
    proxy.process.wait_exit(seconds(30));
}

/// Takes connections, says nothing, and once told passes them on to the source.
fn pass_once_told(gate: &TcpListener, opened: &mpsc::Receiver<()>) {
    gate.set_nonblocking(true).unwrap();
    let mut held = Vec::new();
    let mut told = false;
    while !told || !held.is_empty() {
        held.extend(gate.accept().ok().map(|(taken, _)| taken));
        told |= opened.recv_timeout(Duration::from_millis(20)).is_ok();
        if told {
            held.drain(..).for_each(pass);
        }
    }
    gate.set_nonblocking(false).unwrap();
    gate.incoming().map_while(Result::ok).for_each(pass);
}

fn pass(client: TcpStream) {
    client.set_nonblocking(false).unwrap();
    let server = TcpStream::connect(STAGE.source.bootstrap()).unwrap();
    for (mut from, mut to) in [
        (client.try_clone().unwrap(), server.try_clone().unwrap()),
        (server, client),
    ] {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
