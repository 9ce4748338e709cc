//! A network of machines that a test makes itself: a bridge, and namespaces with a cable to it each; or a router with a
//! cable to each, of which every one is a network of its own.
//!
//! Needs no root where users may make namespaces. Nothing of this machine's own network is touched.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use super::until;

/// A switch without machines yet.
pub struct Network {
    switch: Holder,
    machines: Cell<u16>,
}

/// A machine of that network: a network namespace with `lo` and `eth0`. Ends with its processes' ends.
pub struct Machine {
    holder: Holder,
    pub number: u16,
    /// The router that leads to others, if there is one.
    router: Option<Ipv4Addr>,
}

/// A process that does nothing but keep a namespace alive.
struct Holder(Child);

impl Network {
    /// `None` where namespaces are not allowed and `DPM_NO_NAMESPACES` says that this is known.
    pub fn start() -> Option<Self> {
        let unshare: &[&str] = if is_root() { &["unshare", "-n"] } else { &["unshare", "-Urn"] };
        let probe = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
        if !probe.is_ok_and(|output| output.status.success()) {
            let skip = std::env::var_os("DPM_NO_NAMESPACES").is_some();
            assert!(skip, "no network namespaces here; DPM_NO_NAMESPACES=1 passes these tests by");
            return None;
        }
        let switch = Holder::start(unshare.iter().map(OsString::from).collect());
        switch.script("ip link set lo up; ip link add br0 type bridge; ip link set br0 up");
        Some(Self { switch, machines: Cell::new(0) })
    }

    /// Adds a machine and plugs it in. `eth0` has these addresses, `10.7.0.9/24` or `fd00:7::9/64`, and its
    /// link-local IPv6 address.
    pub fn machine(&self, addresses: &[&str]) -> Machine {
        let machine = self.unplugged(addresses);
        machine.plug();
        machine
    }

    /// Limits a machine's cable to so many bits a second each way, with 50 ms of queue, as a switch's port has.
    #[allow(dead_code, reason = "benches/office.rs uses it")]
    pub fn limit(&self, machine: &Machine, bits_per_second: u64) {
        let shape = |device: &str| {
            format!(
                "tc qdisc replace dev {device} root tbf rate {bits_per_second}bit burst 64kb latency 50ms"
            )
        };
        self.switch.script(&shape(&machine.port()));
        machine.script(&shape("eth0"));
    }

    /// Puts a bad line between a machine and the switch: the command that carries its packets from now on, so much later,
    /// and loses some of what comes. It says a line once it does, and ends when its standard input does.
    #[allow(dead_code, reason = "benches/office.rs has no use for it")]
    pub fn spoil(
        &self,
        machine: &Machine,
        python: impl AsRef<OsStr>,
        delay_ms: u32,
        lost_per_mille: u32,
    ) -> Command {
        let (port, line, far) =
            (machine.port(), format!("line{}", machine.number), format!("far{}", machine.number));
        self.switch.script(&format!(
            "ip link add {line} type veth peer name {far}; ip link set {line} up; \
             ip link set {port} nomaster; ip link set {far} master br0; ip link set {far} up"
        ));
        // Packet by packet: a bundle of them would be lost as one.
        machine.script("ip link set eth0 gso_max_segs 1");
        let enter = self.switch.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).arg(python).args(["-c", include_str!("bad_line.py"), &port, &line]);
        command.args([delay_ms.to_string(), lost_per_mille.to_string()]);
        command
    }

    /// Adds a machine with the cable out.
    pub fn unplugged(&self, addresses: &[&str]) -> Machine {
        let machine = self.add(addresses, None);
        let port = machine.port();
        self.switch.script(&format!("ip link set {port} master br0; ip link set {port} up"));
        machine
    }

    /// Adds a machine on a network of its own, which a router joins to the others that were added so. Its address is
    /// one of the internet's, [`Machine::address`].
    #[allow(dead_code, reason = "benches/office.rs has no use for it")]
    pub fn elsewhere(&self) -> Machine {
        let number = u8::try_from(self.machines.get() + 1).expect("a few machines");
        let [address, router] = [2, 1].map(|host| Ipv4Addr::new(5, 10, number, host));
        let machine = self.add(&[&format!("{address}/24")], Some(router));
        let port = machine.port();
        self.switch.script(&format!(
            "echo 1 >/proc/sys/net/ipv4/ip_forward; ip address add {router}/24 dev {port}; ip link set {port} up"
        ));
        machine.plug();
        machine
    }

    /// A machine whose cable has one end in the switch, where nothing is done with it.
    fn add(&self, addresses: &[&str], router: Option<Ipv4Addr>) -> Machine {
        let number = self.machines.get() + 1;
        self.machines.set(number);
        let mut unshare = self.switch.enter();
        unshare.extend(["unshare", "-n"].map(OsString::from));
        let machine = Machine { holder: Holder::start(unshare), number, router };
        let holder = &machine.holder;
        self.switch.script(&format!(
            "ip link add {} type veth peer name eth0 netns {}",
            machine.port(),
            holder.0.id()
        ));
        holder.script("ip link set lo up");
        for address in addresses {
            // Nobody else has it: what would find that out takes a second or two.
            let nodad = if address.contains(':') { "nodad" } else { "" };
            holder.script(&format!("ip address add {address} dev eth0 {nodad}"));
        }
        machine
    }
}

impl Machine {
    /// Plugs the cable in.
    pub fn plug(&self) {
        // As on a machine without a default route; multicast by address alone needs one.
        self.script(
            "ip link set eth0 up multicast on; \
             if ip -4 address show dev eth0 | grep -q inet; then ip route add 224.0.0.0/4 dev eth0; fi",
        );
        if let Some(router) = self.router {
            self.script(&format!("ip route add default via {router}"));
        }
    }

    /// Pulls the cable out.
    #[allow(dead_code, reason = "benches/office.rs has no use for it")]
    pub fn unplug(&self) {
        self.script("ip link set eth0 down");
    }

    /// Where a machine behind a router can be reached.
    #[allow(dead_code, reason = "benches/office.rs has no use for it")]
    pub fn address(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.router.expect("it is behind a router").octets();
        Ipv4Addr::new(a, b, c, 2)
    }

    /// The switch's end of its cable.
    fn port(&self) -> String {
        format!("port{}", self.number)
    }

    /// The words that run a command there.
    pub fn enter(&self) -> Vec<OsString> {
        self.holder.enter()
    }

    /// A command that runs there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let enter = self.holder.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).arg(program);
        command
    }

    /// Runs shell lines there to their good end.
    pub fn script(&self, script: &str) {
        self.holder.script(script);
    }

    /// Bytes that its cable has carried so far: to it, and from it. Frames' heads are counted once a packet of the
    /// kernel, which may be 64 KiB.
    #[allow(dead_code, reason = "benches/office.rs uses it")]
    pub fn carried(&self) -> (u64, u64) {
        let table =
            std::fs::read_to_string(format!("/proc/{}/net/dev", self.holder.0.id())).expect("it runs");
        let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:")).expect("it has a cable");
        let mut columns = line.split_whitespace().map(|column| column.parse().expect("a number"));
        (columns.next().expect("received"), columns.nth(7).expect("sent"))
    }
}

impl Holder {
    /// Starts `cat` behind these words, each of which takes the place of the one before.
    fn start(words: Vec<OsString>) -> Self {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("cat").stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = Self(command.spawn().expect("unshare and nsenter are there"));
        let name = format!("/proc/{}/comm", holder.0.id());
        until("a namespace is there", || std::fs::read_to_string(&name).is_ok_and(|name| name == "cat\n"));
        holder
    }

    /// The words that run a command in this namespace.
    fn enter(&self) -> Vec<OsString> {
        let mut words = vec!["nsenter".into(), "--target".into(), self.0.id().to_string().into()];
        if !is_root() {
            words.extend(["--user", "--preserve-credentials"].map(OsString::from));
        }
        words.push("--net".into());
        words
    }

    fn script(&self, script: &str) {
        let enter = self.enter();
        let output = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["sh", "-ec", script])
            .stdin(Stdio::null())
            .output()
            .expect("nsenter is there");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Ended already, or ended now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
