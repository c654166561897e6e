// SPDX-License-Identifier: GPL-2.0
//! Errors of PCI Express devices in words and as JSON.

use serde::Serialize;

use crate::abi::{aer, Aer};

/// Bits of the Correctable Error Status register (PCI Express 6.0, 7.8.4.5).
const CORRECTABLE: [(u32, &str); 8] = [
    (0, "receiver error"),
    (6, "bad TLP"),
    (7, "bad DLLP"),
    (8, "replay number rollover"),
    (12, "replay timer timeout"),
    (13, "advisory non-fatal error"),
    (14, "corrected internal error"),
    (15, "header log overflow"),
];

/// Bits of the Uncorrectable Error Status register (PCI Express 6.0, 7.8.4.2).
const UNCORRECTABLE: [(u32, &str); 17] = [
    (4, "data link protocol error"),
    (5, "surprise down"),
    (12, "poisoned TLP"),
    (13, "flow control protocol error"),
    (14, "completion timeout"),
    (15, "completer abort"),
    (16, "unexpected completion"),
    (17, "receiver overflow"),
    (18, "malformed TLP"),
    (19, "ECRC error"),
    (20, "unsupported request"),
    (21, "ACS violation"),
    (22, "uncorrectable internal error"),
    (23, "blocked multicast TLP"),
    (24, "blocked atomic operation"),
    (25, "blocked TLP prefix"),
    (26, "blocked poisoned TLP"),
];

/// An event's payload.
#[derive(Debug, Serialize)]
pub struct AerView {
    /// As lspci writes it.
    device: String,
    /// Vendor and device.
    id: String,
    status: String,
    advisory: String,
    errors: Vec<String>,
    corrected: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tlp: Option<String>,
}

impl AerView {
    /// The view of a payload.
    pub fn new(kind: u16, aer: &Aer) -> Self {
        let words = aer.tlp.map(|word| format!("{word:08x}"));
        Self {
            device: address(aer),
            id: format!("{:04x}:{:04x}", aer.vendor, aer.device),
            status: format!("{:#010x}", aer.status),
            advisory: format!("{:#010x}", aer.advisory),
            errors: errors(kind, aer),
            corrected: aer.corrected,
            tlp: (aer.has_tlp != 0).then(|| words.join(" ")),
        }
    }
}

/// The kind's name.
pub fn kind_name(kind: u16) -> &'static str {
    match kind {
        aer::CORRECTABLE => "correctable",
        aer::NONFATAL => "nonfatal",
        aer::FATAL => "fatal",
        _ => "",
    }
}

/// What happened, in words.
pub fn text(kind: u16, aer: &Aer) -> String {
    let what = match kind {
        aer::CORRECTABLE => format!("correctable error {}", aer.corrected),
        aer::NONFATAL => "non-fatal error".into(),
        aer::FATAL => "fatal error".into(),
        _ => format!("kind {kind}"),
    };
    let errors = match &errors(kind, aer)[..] {
        [] if aer.status == 0 => "the device cannot be asked".into(),
        [] => format!("status {:#010x}", aer.status),
        errors => errors.join(", "),
    };
    let (device, vendor, id) = (address(aer), aer.vendor, aer.device);
    format!("{what} of {device} [{vendor:04x}:{id:04x}]: {errors}")
}

fn address(aer: &Aer) -> String {
    let (domain, bus) = (aer.domain, aer.bus);
    format!(
        "{domain:04x}:{bus:02x}:{:02x}.{}",
        aer.devfn >> 3,
        aer.devfn & 7
    )
}

fn errors(kind: u16, aer: &Aer) -> Vec<String> {
    let (table, advisory): (&[_], _) = match kind {
        aer::CORRECTABLE => (&CORRECTABLE, aer.advisory),
        _ => (&UNCORRECTABLE, 0),
    };
    let named = |table: &[(u32, &str)], status: u32| -> Vec<String> {
        table
            .iter()
            .filter(|(bit, _)| status >> bit & 1 == 1)
            .map(|(_, name)| (*name).into())
            .collect()
    };
    let mut errors = named(table, aer.status);
    errors.extend(named(&UNCORRECTABLE, advisory));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: Aer = Aer {
        status: 1 << 14,
        vendor: 0x8086,
        device: 0x10d3,
        bus: 0x1b,
        devfn: 0x0a,
        ..Aer::ZERO
    };

    #[test]
    fn errors_read_well() {
        let text = |kind, aer| super::text(kind, &aer);
        assert_eq!(
            text(aer::NONFATAL, NIC),
            "non-fatal error of 0000:1b:01.2 [8086:10d3]: completion timeout"
        );
        let advisory = Aer {
            status: 1 << 13,
            advisory: 1 << 20,
            corrected: 7,
            ..NIC
        };
        assert_eq!(
            text(aer::CORRECTABLE, advisory),
            "correctable error 7 of 0000:1b:01.2 [8086:10d3]: \
             advisory non-fatal error, unsupported request"
        );
        assert_eq!(
            text(aer::FATAL, Aer { status: 0, ..NIC }),
            "fatal error of 0000:1b:01.2 [8086:10d3]: the device cannot be asked"
        );
        assert_eq!(
            text(
                aer::FATAL,
                Aer {
                    status: 1 << 31,
                    ..NIC
                }
            ),
            "fatal error of 0000:1b:01.2 [8086:10d3]: status 0x80000000"
        );
    }

    #[test]
    fn a_packet_is_shown_if_there_is_one() {
        let mut aer = NIC;
        let json = |aer: &Aer| serde_json::to_value(AerView::new(aer::FATAL, aer)).unwrap();
        assert!(json(&aer).get("tlp").is_none());
        aer.has_tlp = 1;
        aer.tlp = [0x4000001, 0x20_0a03, 0, 0xffff_ffff];
        assert_eq!(json(&aer)["tlp"], "04000001 00200a03 00000000 ffffffff");
        assert_eq!(
            json(&aer)["errors"],
            serde_json::json!(["completion timeout"])
        );
    }
}
