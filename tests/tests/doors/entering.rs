//! What a connection goes through before its first request: silence, load balancers, SASL of old.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use teeline_tests::driver::{Driver, Family};
use teeline_tests::wait::{seconds, wait_for, wait_until};
use teeline_tests::workdir::WorkDir;

use crate::secured::{PASSWORD, SECURED, USER};
use crate::setting::{by_name, forwarding, listen_tls, over_tls, records, topic};

/// A request of version 0 without a client id, whose body follows.
fn request(api_key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend((8 + 2 + body.len() as i32).to_be_bytes());
    frame.extend(api_key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(7_i32.to_be_bytes());
    frame.extend((-1_i16).to_be_bytes());
    frame.extend(body);
    frame
}

/// The next frame, without its length.
fn answer(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn open(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    stream
}

#[test]
fn who_says_nothing_in_the_greeting_is_no_obstacle_and_does_not_stay() {
    const TOPIC: &str = "past-the-silent";
    const SILENT: usize = 300;
    let work = WorkDir::create("silent");
    let java = Driver::start(Family::Java);
    java.create_topics(&SECURED.kafka.bootstrap(), &topic(TOPIC));
    let mut settings = forwarding(work.path(), &SECURED.kafka.bootstrap());
    listen_tls(&mut settings);
    settings.document["clusters"][0]["listen"]["handshake_timeout"] = json!("5s");
    settings.announce("connection refused: ");
    let mut proxy = settings.start();
    // Plaintext to a TLS port ends at once, and the log knows what to do about it.
    let mut plain = open(&settings.bootstrap());
    plain.write_all(&request(18, 0, &[])).unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    // It is counted a moment after the connection is gone.
    wait_until("plaintext to be counted", seconds(10), || {
        proxy.metric_with("teeline_tls_failures_total", "reason=\"not_tls\"") >= 1.0
    });
    assert!(
        proxy.process.log().contains("may not speak TLS"),
        "{}",
        proxy.process.log_tail()
    );
    let mut silent: Vec<TcpStream> = (0..SILENT).map(|_| open(&settings.bootstrap())).collect();
    // Half a greeting is none either.
    silent[0].write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
    java.open_producer("through", &by_name(&settings), &over_tls("authority.pem", &[]));
    java.send_all("through", TOPIC, &records(0, 10));
    wait_for("the silent ones to be shut out", seconds(30), || {
        match proxy.metric_with("teeline_tls_failures_total", "reason=\"timeout\"") {
            count if count >= SILENT as f64 => Ok(()),
            count => Err(format!("{count} of {SILENT}")),
        }
    });
    assert_eq!(silent[1].read(&mut [0; 8]).unwrap_or(0), 0);
    proxy.stop();
}

#[test]
fn load_balancers_say_for_whom_they_connect_and_others_may_not() {
    let work = WorkDir::create("balanced");
    let mut settings = forwarding(work.path(), &SECURED.kafka.bootstrap());
    settings.document["clusters"][0]["listen"]["proxy_protocol"] = json!({"from": ["127.0.0.1/32"]});
    settings.document["clusters"][0]["listen"]["handshake_timeout"] = json!("1s");
    settings.document["log"] = json!({"filter": "info,teeline_proxy=debug"});
    settings.announce("connection refused: ");
    let mut proxy = settings.start();
    let binary = [
        b"\r\n\r\n\0\r\nQUIT\n".as_slice(),
        &[
            0x21, 0x11, 0, 12, 192, 0, 2, 7, 127, 0, 0, 1, 0xd4, 0x31, 0x4a, 0x94,
        ],
    ]
    .concat();
    let text = b"PROXY TCP6 2001:db8::7 ::1 54321 9092\r\n".to_vec();
    for (header, client) in [(binary, "192.0.2.7:54321"), (text, "[2001:db8::7]:54321")] {
        let mut stream = open(&settings.bootstrap());
        stream.write_all(&header).unwrap();
        stream.write_all(&request(18, 0, &[])).unwrap();
        assert_eq!(answer(&mut stream).unwrap()[..6], [0, 0, 0, 7, 0, 0]);
        wait_for("the client's address in the log", seconds(10), || {
            let log = proxy.process.log();
            let found = log
                .lines()
                .any(|line| line.contains("connection opened") && line.contains(client));
            found.then_some(()).ok_or(client)
        });
    }
    // A trusted load balancer always has a header.
    for without in [request(18, 0, &[]), Vec::new()] {
        let mut stream = open(&settings.bootstrap());
        stream.write_all(&without).unwrap();
        assert!(answer(&mut stream).is_err());
    }
    wait_until("both to be counted", seconds(10), || {
        proxy.metric_with("teeline_connections_refused_total", "reason=\"proxy_protocol\"") == 2.0
    });
    proxy.stop();

    // Where nobody is named, a header is no request.
    let work = WorkDir::create("unbalanced");
    let mut settings = forwarding(work.path(), &SECURED.kafka.bootstrap());
    settings.announce("connection closed: ");
    let mut proxy = settings.start();
    let mut stream = open(&settings.bootstrap());
    stream
        .write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n")
        .unwrap();
    stream.write_all(&request(18, 0, &[])).unwrap();
    assert!(answer(&mut stream).is_err());
    proxy.stop();
}

#[test]
fn tokens_of_the_first_sasl_handshake_have_no_frames_of_kafka_and_pass_all_the_same() {
    let work = WorkDir::create("unframed");
    let mut settings = forwarding(work.path(), &SECURED.sasl_plaintext());
    settings.document["clusters"][0]["upstream"]["security_protocol"] = json!("SASL_PLAINTEXT");
    settings.document["clusters"][0]["upstream"]["capture_credentials"] =
        json!({"bootstrap_servers": SECURED.kafka.bootstrap()});
    let mut proxy = settings.start();
    let metadata = request(3, 1, &[0, 0, 0, 0]);
    let handshake = |stream: &mut TcpStream, password: &str| {
        stream.write_all(&request(17, 0, b"\0\x05PLAIN")).unwrap();
        assert_eq!(answer(stream).unwrap()[4..6], [0, 0], "PLAIN is offered");
        let token = format!("\0{USER}\0{password}");
        stream.write_all(&(token.len() as u32).to_be_bytes()).unwrap();
        stream.write_all(token.as_bytes()).unwrap();
    };
    let mut stream = open(&settings.bootstrap());
    handshake(&mut stream, PASSWORD);
    assert!(answer(&mut stream).unwrap().is_empty(), "the token is accepted");
    // Behind it everything is framed again, and addresses are the proxy's.
    stream.write_all(&metadata).unwrap();
    let brokers = answer(&mut stream).unwrap();
    assert_eq!(brokers[4..8], [0, 0, 0, 1]);
    let port = u32::from_be_bytes(brokers[23..27].try_into().unwrap());
    let bootstrap: u32 = settings.bootstrap().rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(port, bootstrap + 2, "broker 1 is on the second port after it");
    let mut stream = open(&settings.bootstrap());
    handshake(&mut stream, "wrong");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(
        answer(&mut stream).is_err(),
        "the broker hangs up, and so does the proxy"
    );
    proxy.stop();
}
