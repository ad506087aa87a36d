//! Breaches that span several rows and break no rule of any one table. Each must be reported by the check that is made
//! for it: the changes of single cells are often noticed by another check too.

use std::path::Path;

use boxoffice::audit;
use rusqlite::Connection;

use super::folder::healthy_folder;

struct Breach {
    /// Selects the purchase or event of which the copy is changed, as `chosen`.
    chosen: &'static str,
    changes: &'static str,
    /// The violation that must be reported.
    subject: &'static str,
    detail: &'static str,
}

const WITH_POINTS: &str = "SELECT h.saga_id, h.user_id, h.point, p.ticket_id FROM point_hold h JOIN payment p USING (saga_id) \
     WHERE h.point > 0 AND p.point_amount = h.point AND p.final_amount > 0";

const BREACHES: &[(&str, Breach)] = &[
    (
        "the row of an unpaid reservation is gone while points are held",
        Breach {
            chosen: "AND p.status = 'CREATED' AND h.state = 'HELD' AND EXISTS (SELECT 1 FROM reservation r WHERE r.ticket_id = p.ticket_id)",
            changes: "DELETE FROM reservation WHERE ticket_id = (SELECT ticket_id FROM chosen)",
            subject: "purchase of ticket",
            detail: "it can be paid, but has no reservation and no expiry saga",
        },
    ),
    (
        "an unpaid purchase was released, but nothing takes it back",
        Breach {
            chosen: "AND p.status = 'CREATED' AND h.state = 'HELD' AND EXISTS (SELECT 1 FROM reservation r WHERE r.ticket_id = p.ticket_id)",
            changes: "UPDATE purchase SET released_at = requested_at WHERE ticket_id = (SELECT ticket_id FROM chosen)",
            subject: "purchase of ticket",
            detail: "it can be paid, but has no reservation and no expiry saga",
        },
    ),
    (
        "a paid purchase has no hold",
        Breach {
            chosen: "AND p.status = 'SUCCEEDED' AND p.refund = 'NONE' AND h.state = 'USED'",
            changes: "DELETE FROM point_hold WHERE saga_id = (SELECT saga_id FROM chosen);
                DELETE FROM point_ledger WHERE saga_id = (SELECT saga_id FROM chosen);
                UPDATE app_user SET balance = balance + (SELECT point FROM chosen) WHERE user_id = (SELECT user_id FROM chosen)",
            subject: "points of saga",
            detail: "must be one of [Used]",
        },
    ),
    (
        "the hold of a refunded purchase is still held",
        Breach {
            chosen: "AND p.status = 'CANCELLED' AND h.state = 'RESTORED'",
            changes: "UPDATE point_hold SET state = 'HELD', payment_version = 0 WHERE saga_id = (SELECT saga_id FROM chosen);
                DELETE FROM point_ledger WHERE saga_id = (SELECT saga_id FROM chosen) AND kind <> 'RESERVED';
                UPDATE app_user SET balance = balance - (SELECT point FROM chosen) WHERE user_id = (SELECT user_id FROM chosen)",
            subject: "points of saga",
            detail: "must be one of [Restored]",
        },
    ),
    (
        "a hold differs from the purchase's points",
        Breach {
            chosen: "AND p.status = 'SUCCEEDED' AND p.refund = 'NONE' AND h.state = 'USED'",
            changes: "UPDATE point_hold SET point = point - 1 WHERE saga_id = (SELECT saga_id FROM chosen);
                UPDATE point_ledger SET amount = amount + 1 WHERE saga_id = (SELECT saga_id FROM chosen) AND kind = 'RESERVED';
                UPDATE point_ledger SET balance_after = balance_after + 1 WHERE user_id = (SELECT user_id FROM chosen)
                    AND user_version >= (SELECT min(user_version) FROM point_ledger WHERE saga_id = (SELECT saga_id FROM chosen));
                UPDATE app_user SET balance = balance + 1 WHERE user_id = (SELECT user_id FROM chosen)",
            subject: "points of saga",
            detail: "user or points differ from the purchase",
        },
    ),
    (
        "the price of a payment differs from the purchase",
        Breach {
            chosen: "AND p.status = 'CREATED' AND h.state = 'HELD'",
            changes: "UPDATE payment SET total_amount = total_amount + 1, final_amount = final_amount + 1
                WHERE saga_id = (SELECT saga_id FROM chosen)",
            subject: "payment",
            detail: "it differs from its saga's request",
        },
    ),
    (
        "the points of a payment differ from the purchase",
        Breach {
            chosen: "AND p.status = 'CREATED' AND h.state = 'HELD'",
            changes: "UPDATE payment SET point_amount = point_amount + 1, final_amount = final_amount - 1
                WHERE saga_id = (SELECT saga_id FROM chosen)",
            subject: "payment",
            detail: "it differs from its saga's request",
        },
    ),
    (
        "an allocation differs from its event",
        Breach {
            chosen: "AND p.status = 'CREATED'",
            changes: "UPDATE allocation SET quantity = quantity + 1
                WHERE event_id = (SELECT event_id FROM purchase WHERE ticket_id = (SELECT ticket_id FROM chosen))",
            subject: "event",
            detail: "tickets are on sale",
        },
    ),
];

#[tokio::test]
async fn each_breach_across_rows_is_reported_by_its_own_check() {
    let (folder, now) = healthy_folder().await;
    let mut unreported = Vec::new();
    for (name, breach) in BREACHES {
        let copy = tempfile::tempdir().unwrap();
        breach.make(folder.path(), copy.path());
        let report = audit::audit_at(copy.path(), now).unwrap();
        let is_wanted = |it: &audit::Violation| {
            it.subject.starts_with(breach.subject) && it.detail.contains(breach.detail)
        };
        if !report.violations.iter().any(is_wanted) {
            unreported.push((name, report.violations));
        }
    }
    assert!(unreported.is_empty(), "{unreported:#?}");
}

impl Breach {
    fn make(&self, folder: &Path, copy: &Path) {
        super::folder::copy_to(folder, copy);
        let db = Connection::open(copy.join("boxoffice.db")).unwrap();
        let chosen = format!(
            "CREATE TEMP TABLE chosen AS {WITH_POINTS} {} LIMIT 1",
            self.chosen
        );
        db.execute_batch(&chosen).unwrap();
        for change in self.changes.split(';') {
            assert!(
                db.execute(change, ()).unwrap() > 0,
                "nothing to change: {change}"
            );
        }
    }
}
