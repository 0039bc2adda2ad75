//! Who never got an answer is reset, as if there had been no broker: an orderly end tells some clients to give up.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use serde_json::json;
use teeline_config::{HostPort, Tls};
use teeline_tests::components;
use teeline_tests::ports::PortBlock;
use teeline_tests::programs::{Archive, ProxySettings};
use teeline_tests::raw::{RawClient, request};
use teeline_tests::wait::{seconds, wait_for, wait_until};
use teeline_tests::workdir::WorkDir;
use teeline_wire::client::TlsClient;
use tokio::io::AsyncReadExt;

/// A client that has greeted the proxy by TLS is told as clearly as others that there is no broker.
#[test]
fn an_unreachable_cluster_resets_clients_with_tls_too() {
    let work = WorkDir::create("unreachable-tls");
    let certificate = |name: &str| components::source("certificates").join(name);
    let archive = Archive::Directory(work.join("archive"));
    let nobody = PortBlock::reserve();
    let mut settings = ProxySettings::new(work.path(), &nobody.address(0), &archive);
    let main = &mut settings.document["clusters"][0];
    main["capture"]["enabled"] = json!(false);
    main["listen"]["tls"] =
        json!({"cert_file": certificate("proxy.pem"), "key_file": certificate("proxy.key")});
    let mut proxy = settings.launch();
    let trusting = TlsClient::new(Tls {
        ca_file: Some(certificate("authority.pem")),
        ..Tls::default()
    });
    let (trusting, bootstrap) = (Arc::new(trusting), settings.bootstrap());
    let stream = wait_for("the bootstrap port to be bound", seconds(20), || {
        TcpStream::connect(&bootstrap)
    });
    let end = tokio::runtime::Runtime::new().unwrap().block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (_, port) = bootstrap.rsplit_once(':').unwrap();
        let address = HostPort {
            host: "localhost".to_owned(),
            port: port.parse().unwrap(),
        };
        let mut secured = trusting.secure(stream, &address, seconds(20)).await.unwrap();
        tokio::time::timeout(seconds(20), secured.read(&mut [0; 16])).await
    });
    let end = end.expect("an end").map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    proxy.kill();
}

#[test]
fn who_waits_for_an_answer_that_never_comes_is_cut_at_half_of_the_time_to_drain() {
    let work = WorkDir::create("cut");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = silent.local_addr().unwrap().to_string();
    let (noticed, requests) = mpsc::channel();
    thread::spawn(move || {
        for connection in silent.incoming() {
            let (mut connection, noticed) = (connection.unwrap(), noticed.clone());
            thread::spawn(move || {
                let mut heard = [0; 4096];
                while let Ok(1..) = Read::read(&mut connection, &mut heard) {
                    // The test may be over.
                    let _ = noticed.send(heard.windows(5).any(|piece| piece == b"stuck"));
                }
            });
        }
    });
    let mut settings = ProxySettings::new(work.path(), &upstream, &Archive::Directory(work.join("archive")));
    settings.document["clusters"][0]["capture"]["enabled"] = json!(false);
    settings.document["process"] = json!({"drain_timeout": "6s"});
    let mut proxy = settings.launch();
    let mut client = wait_for("the proxy to listen", seconds(20), || {
        RawClient::connect(&settings.bootstrap())
    });
    // FindCoordinator.
    client.send(&request(10, 0, b"\0\x05stuck")).unwrap();
    wait_until("the request to be forwarded", seconds(20), || {
        requests.try_iter().any(|own| own)
    });
    let began = Instant::now();
    proxy.process.terminate();
    // It never got an answer: as if there had been no broker.
    let end = client.length().map_err(|error| error.kind());
    let took = began.elapsed();
    assert_eq!(end, Err(ErrorKind::ConnectionReset), "after {took:?}");
    assert!((seconds(2)..seconds(6)).contains(&took), "{took:?}");
    proxy.process.wait_exit(seconds(20));
}
