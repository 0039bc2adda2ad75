//! Several proxies, each a process of its own with a buffer of its own, before one cluster and into one backup: the
//! way of sidecars.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin_port;
use crate::process::Process;
use crate::programs::{Archive, Proxy, ProxySettings, STOP_LIMIT, assert_orderly_log};
use crate::wait::{seconds, wait_for};

/// One host: a proxy, and its segmenter where that is a process beside it.
#[derive(Debug)]
pub struct Member {
    /// How it is configured.
    pub settings: ProxySettings,
    proxy: Option<Proxy>,
    segmenter: Option<Process>,
    segmenter_settings: Option<ProxySettings>,
}

/// All of them.
#[derive(Debug)]
pub struct Fleet(pub Vec<Member>);

impl Fleet {
    /// `count` proxies that are configured and not started. Their buffers and logs lie in directories of their own
    /// below `directory`: `1`, `2`, …
    pub fn new(directory: &Path, upstream: &str, count: usize, archive: &Archive) -> Self {
        let member = |number: usize| {
            let own = directory.join(number.to_string());
            Member::new(ProxySettings::new(&own, upstream, archive))
        };
        Self((1..=count).map(member).collect())
    }

    /// The same change to every configuration.
    pub fn configure(&mut self, change: impl Fn(&mut Value)) {
        for member in &mut self.0 {
            change(&mut member.settings.document);
        }
    }

    /// An audit that finds within seconds what in earnest it finds within minutes. `grace` must be longer than what
    /// was captured takes to be archived, or the auditor fetches what is on its way.
    pub fn audit_quickly(&mut self, grace: Duration) {
        let grace = format!("{}ms", grace.as_millis());
        self.configure(|document| {
            document["audit"] = json!({"interval": "500ms", "grace": grace, "lease_ttl": "3s"});
        });
    }

    /// Announces WARN and ERROR lines of every member.
    pub fn announce(&mut self, text: &str) {
        for member in &mut self.0 {
            member.settings.announce(text);
        }
    }

    /// Starts every member, and waits until all are ready.
    pub fn start(&mut self) {
        for member in &mut self.0 {
            member.launch();
        }
        for member in &mut self.0 {
            member.wait_ready();
        }
    }

    /// SIGTERM to all at once; each must end with 0, everything archived, and an orderly log.
    pub fn stop(&mut self) {
        for member in &mut self.0 {
            if let Some(proxy) = &mut member.proxy {
                proxy.process.terminate();
            }
        }
        for member in &mut self.0 {
            member.wait_stopped();
        }
    }

    /// Which of them say that they are the auditor now.
    pub fn auditors(&self) -> Vec<usize> {
        let active = |member: &Member| member.metric("teeline_audit_active") > 0.0;
        (0..self.0.len())
            .filter(|index| active(&self.0[*index]))
            .collect()
    }
}

impl Member {
    /// A host that is configured and not started.
    pub fn new(settings: ProxySettings) -> Self {
        Self {
            settings,
            proxy: None,
            segmenter: None,
            segmenter_settings: None,
        }
    }

    /// Has the segmenter be a process of its own, with the admin port of `apart`, whose configuration it gets but for
    /// the buffer.
    pub fn set_apart(&mut self, mut apart: ProxySettings) {
        self.settings.document["segmenter"]["embedded"] = false.into();
        let admin = apart.document["admin"].clone();
        apart.document = self.settings.document.clone();
        apart.document["admin"] = admin;
        self.segmenter_settings = Some(apart);
    }

    /// What its producers bootstrap from.
    pub fn bootstrap(&self) -> String {
        self.settings.bootstrap()
    }

    /// Starts what does not run, without waiting for it.
    pub fn launch(&mut self) {
        if self.proxy.is_none() {
            self.proxy = Some(self.settings.launch());
        }
        self.launch_segmenter();
    }

    /// Starts the segmenter again, where it is a process of its own.
    pub fn launch_segmenter(&mut self) {
        if let Some(settings) = &self.segmenter_settings
            && self.segmenter.is_none()
        {
            self.segmenter = Some(settings.launch_segmenter(&[]));
        }
    }

    /// Waits until the proxy serves.
    pub fn wait_ready(&mut self) {
        self.running().wait_ready(seconds(60));
    }

    /// SIGTERM to the proxy, which must end with 0, everything archived, and an orderly log.
    pub fn stop(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            proxy.stop();
        }
    }

    /// SIGKILL to the proxy.
    pub fn kill(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            proxy.kill();
        }
    }

    /// SIGKILL to the segmenter, where it is a process of its own. Whether it was.
    pub fn kill_segmenter(&mut self) -> bool {
        self.segmenter.take().is_some()
    }

    /// The proxy, which must run.
    pub fn running(&mut self) -> &mut Proxy {
        self.proxy.as_mut().expect("it was started")
    }

    /// A metric of proxy and segmenter, summed over labels; 0 where neither answers.
    pub fn metric(&self, name: &str) -> f64 {
        let apart = self.segmenter_settings.as_ref().map(ProxySettings::admin);
        let ports = [Some(self.settings.admin()), apart];
        let values = ports
            .into_iter()
            .flatten()
            .map(|port| admin_port::metric(&port, name));
        values.map(|value| value.unwrap_or(0.0)).sum()
    }

    /// Everything archived, an orderly log; the proxy was told to stop.
    fn wait_stopped(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            proxy.wait_stopped();
        }
        let Some(mut segmenter) = self.segmenter.take() else {
            return;
        };
        // It serves the buffer for ever: a proxy might write it again.
        wait_for("everything to be archived", STOP_LIMIT, || {
            segmenter.assert_running();
            match self.metric("teeline_unarchived_batches") {
                0.0 => Ok(()),
                left => Err(format!("{left} batches are not in the archive yet")),
            }
        });
        assert_eq!(segmenter.stop(STOP_LIMIT), 0, "{}", segmenter.log_tail());
        assert_orderly_log(&segmenter.log(), &self.settings.announced);
    }
}
