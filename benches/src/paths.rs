//! The ways from a producer to the broker.

use serde_json::json;
use teeline_tests::kafka::Kafka;
use teeline_tests::programs::{Archive, Proxy, ProxySettings};
use teeline_tests::workdir::WorkDir;

use crate::cost;

/// One way to the broker.
pub struct Route {
    /// What the report calls it.
    pub name: &'static str,
    /// Where the producer bootstraps.
    pub bootstrap: String,
    /// The topic that only this way is used for.
    pub topic: String,
    proxy: Option<Proxy>,
}

impl Route {
    /// CPU seconds that the proxy, its segmenter included, has used so far; 0 without a proxy.
    pub fn cpu_seconds(&self) -> f64 {
        let Some(proxy) = &self.proxy else { return 0.0 };
        cost::of_process(proxy.process.pid()).cpu_seconds
    }

    /// The proxy's peak resident memory in MiB; 0 without a proxy.
    pub fn peak_memory_mib(&self) -> f64 {
        let Some(proxy) = &self.proxy else { return 0.0 };
        proxy.process.memory_kib("VmHWM") as f64 / 1024.0
    }

    /// Stops the proxy in order: everything that it captured is archived, or this panics with its log.
    pub fn stop(&mut self) {
        if let Some(proxy) = &mut self.proxy {
            proxy.stop();
        }
    }
}

/// Direct, through the proxy without capture, and with each kind of capture; all of them in front of one cluster.
pub fn all(kafka: &Kafka, work: &WorkDir) -> Vec<Route> {
    let mut routes = vec![Route {
        name: "direct",
        bootstrap: kafka.bootstrap(),
        topic: "bench-direct".into(),
        proxy: None,
    }];
    for (name, capture) in [
        ("proxy, no capture", json!({"enabled": false})),
        ("capture async", json!({"enabled": true, "ack": "async"})),
        ("capture durable", json!({"enabled": true, "ack": "durable"})),
    ] {
        let label = name.replace([' ', ','], "-");
        let directory = work.subdirectory(&label);
        let archive = Archive::Directory(work.join(format!("archive-{label}")));
        let mut settings = ProxySettings::new(&directory, &kafka.bootstrap(), &archive);
        let document = &mut settings.document["clusters"][0]["capture"];
        for (key, value) in capture.as_object().expect("an object") {
            document[key] = value.clone();
        }
        // As an operator would run it, not as tests do.
        settings.document["segmenter"] = json!({});
        let proxy = settings.start();
        routes.push(Route {
            name,
            bootstrap: settings.bootstrap(),
            topic: format!("bench-{label}"),
            proxy: Some(proxy),
        });
    }
    routes
}
