package access

import (
	"fmt"
	"strings"
)

// Reason is a stable code that says why a decision fell as it did. Codes are
// never renamed and never used again for something else.
type Reason string

// The reasons, in the order in which Decide looks for them: of several causes
// for a denial, the first here is the one that is named. What is wrong with
// the card stands before what is wrong with the moment.
const (
	ReasonUnreadable        Reason = "unreadable"
	ReasonAllowlistAbsent   Reason = "allowlist_absent"
	ReasonUnknown           Reason = "unknown"
	ReasonRevoked           Reason = "revoked"
	ReasonLost              Reason = "lost"
	ReasonEntryInvalid      Reason = "entry_invalid"
	ReasonExpired           Reason = "expired"
	ReasonNotYetValid       Reason = "not_yet_valid"
	ReasonNoRight           Reason = "no_right"
	ReasonWrongDoor         Reason = "wrong_door"
	ReasonCodeUsed          Reason = "code_used"
	ReasonDoorDisabled      Reason = "door_disabled"
	ReasonLockdown          Reason = "lockdown"
	ReasonAllowlistExpired  Reason = "allowlist_expired"
	ReasonClockUnset        Reason = "clock_unset"
	ReasonOutOfSchedule     Reason = "out_of_schedule"
	ReasonFirstPerson       Reason = "first_person"
	ReasonPassback          Reason = "passback"
	ReasonPassbackTimed     Reason = "passback_timed"
	ReasonOccupancy         Reason = "occupancy"
	ReasonInterlock         Reason = "interlock"
	ReasonPersonLockedOut   Reason = "person_locked_out"
	ReasonReaderLockedOut   Reason = "reader_locked_out"
	ReasonFactorMismatch    Reason = "factor_mismatch"
	ReasonFactorUnavailable Reason = "factor_unavailable"
	ReasonFactorMissing     Reason = "factor_missing"
	ReasonEscortMissing     Reason = "escort_missing"
	ReasonSecondMissing     Reason = "second_person_missing"
	ReasonDuress            Reason = "duress"
	ReasonGrantedBreakGlass Reason = "granted_break_glass"
	ReasonGrantedDuress     Reason = "granted_duress"
	ReasonGranted           Reason = "granted"
)

// ReasonText is what people are told of a reason.
type ReasonText struct {
	Code    Reason `json:"code"`
	Granted bool   `json:"granted"`
	// BreakGlassPasses says that a break-glass credential opens in spite of it.
	BreakGlassPasses bool   `json:"break_glass_passes"`
	Meaning          string `json:"meaning"`
	Action           string `json:"action"` // what staff should do
}

var reasons = [...]ReasonText{
	{ReasonUnreadable, false, false,
		"The reader delivered bits that fit none of the formats it is configured for.",
		"Present the card again, flat and slowly; if it keeps happening, identify the card with `gatehouse badge decode` and check the reader's formats."},
	{ReasonAllowlistAbsent, false, false,
		"The controller has no allowlist that it can trust: there is none, or its signature or content does not check.",
		"Import the allowlist again; if one was there before, find out who or what changed the file."},
	{ReasonUnknown, false, false,
		"The card was read well but is not on the allowlist.",
		"Check who holds the card and whether it was enrolled; a stranger's card is worth a look at the camera."},
	{ReasonRevoked, false, false,
		"The credential was taken back.",
		"Do not let the person in on this card; find out why it is still in use and collect it."},
	{ReasonLost, false, false,
		"The credential was reported lost.",
		"Check the identity of whoever presented it; if its owner found it, have it made active again."},
	{ReasonEntryInvalid, false, false,
		"The allowlist's entry for this card has a state or kind of person that this version does not know.",
		"Update the controller's software or correct the entry at its source."},
	{ReasonExpired, false, false,
		"The credential's validity has ended.",
		"If the person should still have access, have the validity extended."},
	{ReasonNotYetValid, false, false,
		"The credential's validity has not begun.",
		"Wait for the first day of validity, or have it moved forward."},
	{ReasonNoRight, false, false,
		"The person is known but has no right to this door.",
		"If the person needs this door, have the right added by whoever is responsible for it."},
	{ReasonWrongDoor, false, false,
		"The one-time code is for another door.",
		"Show the person which door the code is for, or issue one for this door."},
	{ReasonCodeUsed, false, false,
		"The one-time code was used before, and a code opens once.",
		"Ask who used it; issue another code only to a person whom you know to be the right one."},
	{ReasonDoorDisabled, false, true,
		"The door is out of use for the time being.",
		"Use another door; the reason is in the record and in the door's status, and whoever disabled the door can end it."},
	{ReasonLockdown, false, true,
		"The door is in lockdown, or at a level of threat for which the person is not cleared.",
		"Follow the lockdown procedure; the door works as usual again once the lockdown is lifted."},
	{ReasonAllowlistExpired, false, true,
		"The allowlist is older than the site permits for this kind of person.",
		"Restore the connection to the CRM or import a current allowlist."},
	{ReasonClockUnset, false, true,
		"The controller does not know the time, and the person's access depends on it.",
		"Restore the network's time service or set the controller's clock; rights without any bound in time keep working."},
	{ReasonOutOfSchedule, false, true,
		"The person has a right to this door, but not at this time.",
		"Come back within the schedule, or have the schedule changed if it is wrong."},
	{ReasonFirstPerson, false, true,
		"Nobody comes in at this door before a supervisor has come in that day.",
		"Wait for a supervisor to come in first, or where nobody passes alone, to come along."},
	{ReasonPassback, false, true,
		"By the records the person is in the area already, or is not in the one that they want to leave.",
		"Find out who used the badge before; if somebody went through with another person, have their place reset by whoever may do that."},
	{ReasonPassbackTimed, false, true,
		"The person came in too short a time ago to come in again.",
		"Find out whether the badge was passed on; otherwise wait."},
	{ReasonOccupancy, false, true,
		"As many people are in the area as may be in at once.",
		"Wait until somebody has left; if the count is wrong, have it reset."},
	{ReasonInterlock, false, true,
		"Another door that must be closed first is open or unlocked.",
		"Close the other door and present the card again."},
	{ReasonPersonLockedOut, false, true,
		"The person failed to prove who they are too often and is locked out for a while.",
		"Ask the person what went wrong; if it was not them, have the card taken back and the PIN changed."},
	{ReasonReaderLockedOut, false, true,
		"Too many people in a row failed at this reader, and it takes nobody for a while.",
		"Look who is at the door: somebody may be trying cards, fingers or PINs, or the reader needs cleaning."},
	{ReasonFactorMismatch, false, true,
		"What was given beside the first factor, such as the finger or the PIN, is not the person's.",
		"Ask the person; if they did not try, somebody else has their card."},
	{ReasonFactorUnavailable, false, true,
		"The door asks for factors that cannot be given here: a reader that takes them is missing or faulty, or nothing was enrolled of the person.",
		"See that the door's readers work and that the person is enrolled, or has another factor named instead."},
	{ReasonFactorMissing, false, true,
		"The door asks for more factors than were given in time.",
		"Present the card again and give the other factor at once; the rule that holds is shown by `gatehouse allowlist explain`."},
	{ReasonEscortMissing, false, true,
		"The visitor passes only together with somebody who may escort, and nobody came in time.",
		"Present both cards at the door, one soon after the other."},
	{ReasonSecondMissing, false, true,
		"This door lets people in only two at a time, and no second person came in time.",
		"Present the cards of two people who have a right to this door, one soon after the other."},
	{ReasonDuress, false, false,
		"The person gave the sign of being threatened, and this door stays locked for it; the alarm was raised silently.",
		"Treat it as an emergency: send help, and let nobody at the door notice that you know."},
	{ReasonGrantedBreakGlass, true, true,
		"A break-glass credential opened a door that would have stayed locked; an alarm was raised.",
		"Find out at once who used it and why, and review the use afterwards."},
	{ReasonGrantedDuress, true, true,
		"The person gave the sign of being threatened, and this door opens for it; the alarm was raised silently.",
		"Treat it as an emergency: send help, and let nobody at the door notice that you know."},
	{ReasonGranted, true, true,
		"Everything that the rules ask for was met.",
		"Nothing."},
}

// Reasons is the table of all reasons, in the order of precedence.
func Reasons() []ReasonText { return append([]ReasonText(nil), reasons[:]...) }

// Text is what people are told of r, and whether r is in the table.
func (r Reason) Text() (ReasonText, bool) {
	for _, t := range reasons {
		if t.Code == r {
			return t, true
		}
	}
	return ReasonText{Code: r}, false
}

// ReasonsPage is the page of reason codes, in Markdown.
func ReasonsPage() string {
	var b strings.Builder
	b.WriteString("# Reason codes\n\n" +
		"Every decision has one of these codes. They are never renamed and never used again for something else.\n" +
		"Where several causes deny, the first in this order is named. Any one of them denies, with one exception:\n" +
		"a break-glass credential opens in spite of the causes marked so, and the decision is then `granted_break_glass`.\n\n" +
		"| code | answer | break-glass opens | what it means | what to do |\n" +
		"|---|---|---|---|---|\n")
	for _, t := range reasons {
		answer, passes := "denied", "no"
		if t.Granted {
			answer = "granted"
		}
		if t.BreakGlassPasses {
			passes = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", t.Code, answer, passes, t.Meaning, t.Action)
	}
	return b.String()
}
