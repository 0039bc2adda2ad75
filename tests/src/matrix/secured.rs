//! TLS on both sides of the proxy, and SASL passing through it.

use std::fs;

use serde_json::{Value, json};

use crate::components;
use crate::matrix::broker::{self, Broker};
use crate::programs::ProxySettings;

const USER: &str = "matrix";
const PASSWORD: &str = "of the matrix";
/// The listener's place among the broker's addresses.
const LISTENER: u16 = 5;

/// A broker with a listener for TLS and SCRAM beside the plain one.
pub fn broker(kafka: &str) -> Broker {
    // Given in the properties, since old brokers take a file with keys only if these have a password.
    let keys = fs::read_to_string(certificate("broker-with-key.pem")).expect("read a certificate");
    let keys = keys.replace('\n', "\\n");
    let old = broker::needs_zookeeper(kafka);
    // Such brokers refuse the names of listeners that they do not have.
    let (controller, protocol) = if old {
        ("", "")
    } else {
        (",CONTROLLER://{address 10}", ",CONTROLLER:PLAINTEXT")
    };
    let properties = format!(
        "listeners=PLAINTEXT://{{address 0}},SASL_SSL://{{address {LISTENER}}}{controller}\n\
         advertised.listeners=PLAINTEXT://{{address 0}},SASL_SSL://localhost:{{port {LISTENER}}}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL{protocol}\n\
         ssl.keystore.type=PEM\n\
         ssl.keystore.key={keys}\n\
         ssl.keystore.certificate.chain={keys}\n\
         listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
         listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
    );
    let user = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD},iterations=8192]");
    let arguments = ["--add-scram", &user];
    let broker = Broker::start(kafka, 1, &properties, if old { &[] } else { &arguments });
    if let Broker::Old(old) = &broker {
        old.add_scram(
            USER,
            &format!("SCRAM-SHA-512=[iterations=8192,password={PASSWORD}]"),
        );
    }
    broker
}

/// The broker's secured listener, by the name in its certificate.
pub fn address(broker: &Broker) -> String {
    by_name(&broker.address(LISTENER))
}

/// The same address by the name in the certificate of broker and proxy.
pub fn by_name(address: &str) -> String {
    address.replace("127.0.0.1", "localhost")
}

/// What a client is configured with, whichever it connects to.
pub fn client() -> Value {
    json!({"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": USER, "password": PASSWORD,
        "ca": certificate("authority.pem")})
}

/// Has the proxy present the broker's certificate, and speak TLS to the broker.
pub fn guard(settings: &mut ProxySettings, broker: &Broker) {
    let plain = broker.bootstrap();
    let cluster = &mut settings.document["clusters"][0];
    cluster["upstream"] = json!({
        "bootstrap_servers": address(broker),
        "security_protocol": "SASL_SSL",
        "tls": {"ca_file": certificate("authority.pem")},
        "capture_credentials": {"bootstrap_servers": plain, "security_protocol": "PLAINTEXT"},
    });
    let keys = certificate("broker-with-key.pem");
    cluster["listen"]["tls"] = json!({"cert_file": keys, "key_file": keys});
    cluster["listen"]["advertised_host"] = json!("localhost");
}

fn certificate(name: &str) -> String {
    components::source("certificates")
        .join(name)
        .display()
        .to_string()
}
