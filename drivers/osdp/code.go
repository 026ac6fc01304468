package osdp

import "fmt"

// CommandCode says what a panel asks.
type CommandCode byte

// Codes of commands, by the protocol's names.
const (
	CodePOLL         CommandCode = 0x60
	CodeID           CommandCode = 0x61
	CodeCAP          CommandCode = 0x62
	CodeLSTAT        CommandCode = 0x64
	CodeISTAT        CommandCode = 0x65
	CodeOSTAT        CommandCode = 0x66
	CodeRSTAT        CommandCode = 0x67
	CodeOUT          CommandCode = 0x68
	CodeLED          CommandCode = 0x69
	CodeBUZ          CommandCode = 0x6A
	CodeTEXT         CommandCode = 0x6B
	CodeCOMSET       CommandCode = 0x6E
	CodeBIOREAD      CommandCode = 0x73
	CodeBIOMATCH     CommandCode = 0x74
	CodeKEYSET       CommandCode = 0x75
	CodeCHLNG        CommandCode = 0x76
	CodeSCRYPT       CommandCode = 0x77
	CodeACURXSIZE    CommandCode = 0x7B
	CodeFILETRANSFER CommandCode = 0x7C
	CodeMFG          CommandCode = 0x80
	CodeXWR          CommandCode = 0xA1
	CodeABORT        CommandCode = 0xA2
	CodePIVDATA      CommandCode = 0xA3
	CodeGENAUTH      CommandCode = 0xA4
	CodeCRAUTH       CommandCode = 0xA5
	CodeKEEPACTIVE   CommandCode = 0xA7
)

var commandNames = map[CommandCode]string{
	CodePOLL: "POLL", CodeID: "ID", CodeCAP: "CAP", CodeLSTAT: "LSTAT", CodeISTAT: "ISTAT", CodeOSTAT: "OSTAT",
	CodeRSTAT: "RSTAT", CodeOUT: "OUT", CodeLED: "LED", CodeBUZ: "BUZ", CodeTEXT: "TEXT", CodeCOMSET: "COMSET",
	CodeBIOREAD: "BIOREAD", CodeBIOMATCH: "BIOMATCH", CodeKEYSET: "KEYSET", CodeCHLNG: "CHLNG", CodeSCRYPT: "SCRYPT",
	CodeACURXSIZE: "ACURXSIZE", CodeFILETRANSFER: "FILETRANSFER", CodeMFG: "MFG", CodeXWR: "XWR", CodeABORT: "ABORT",
	CodePIVDATA: "PIVDATA", CodeGENAUTH: "GENAUTH", CodeCRAUTH: "CRAUTH", CodeKEEPACTIVE: "KEEPACTIVE",
}

func (c CommandCode) String() string {
	if name, ok := commandNames[c]; ok {
		return name
	}
	return fmt.Sprintf("command %#02x", byte(c))
}

// ReplyCode says what a peripheral answers.
type ReplyCode byte

// Codes of replies, by the protocol's names.
const (
	CodeACK       ReplyCode = 0x40
	CodeNAK       ReplyCode = 0x41
	CodePDID      ReplyCode = 0x45
	CodePDCAP     ReplyCode = 0x46
	CodeLSTATR    ReplyCode = 0x48
	CodeISTATR    ReplyCode = 0x49
	CodeOSTATR    ReplyCode = 0x4A
	CodeRSTATR    ReplyCode = 0x4B
	CodeRAW       ReplyCode = 0x50
	CodeFMT       ReplyCode = 0x51
	CodeKEYPAD    ReplyCode = 0x53
	CodeCOM       ReplyCode = 0x54
	CodeBIOREADR  ReplyCode = 0x57
	CodeBIOMATCHR ReplyCode = 0x58
	CodeCCRYPT    ReplyCode = 0x76
	CodeRMACI     ReplyCode = 0x78
	CodeBUSY      ReplyCode = 0x79
	CodeFTSTAT    ReplyCode = 0x7A
	CodePIVDATAR  ReplyCode = 0x80
	CodeGENAUTHR  ReplyCode = 0x81
	CodeCRAUTHR   ReplyCode = 0x82
	CodeMFGSTATR  ReplyCode = 0x83
	CodeMFGERRR   ReplyCode = 0x84
	CodeMFGREP    ReplyCode = 0x90
	CodeXRD       ReplyCode = 0xB1
)

var replyNames = map[ReplyCode]string{
	CodeACK: "ACK", CodeNAK: "NAK", CodePDID: "PDID", CodePDCAP: "PDCAP", CodeLSTATR: "LSTATR", CodeISTATR: "ISTATR",
	CodeOSTATR: "OSTATR", CodeRSTATR: "RSTATR", CodeRAW: "RAW", CodeFMT: "FMT", CodeKEYPAD: "KEYPAD", CodeCOM: "COM",
	CodeBIOREADR: "BIOREADR", CodeBIOMATCHR: "BIOMATCHR", CodeCCRYPT: "CCRYPT", CodeRMACI: "RMAC_I", CodeBUSY: "BUSY",
	CodeFTSTAT: "FTSTAT", CodePIVDATAR: "PIVDATAR", CodeGENAUTHR: "GENAUTHR", CodeCRAUTHR: "CRAUTHR",
	CodeMFGSTATR: "MFGSTATR", CodeMFGERRR: "MFGERRR", CodeMFGREP: "MFGREP", CodeXRD: "XRD",
}

func (c ReplyCode) String() string {
	if name, ok := replyNames[c]; ok {
		return name
	}
	return fmt.Sprintf("reply %#02x", byte(c))
}

// NAKCode is why a peripheral refuses a command. It is an error, so that
// errors.Is(err, osdp.NAKBioType) tells it of an error that a NAK caused.
type NAKCode byte

// The reasons of a NAK.
const (
	NAKCheck          NAKCode = 1 // the command's CRC or checksum was wrong
	NAKLength         NAKCode = 2
	NAKUnknownCommand NAKCode = 3
	NAKSequence       NAKCode = 4
	NAKNoSecurity     NAKCode = 5 // it has no Secure Channel
	NAKSecurity       NAKCode = 6 // it wants a Secure Channel, or has lost the session
	NAKBioType        NAKCode = 7
	NAKBioFormat      NAKCode = 8
	NAKRecord         NAKCode = 9
)

var nakNames = map[NAKCode]string{
	NAKCheck: "wrong CRC or checksum", NAKLength: "wrong length", NAKUnknownCommand: "unknown command",
	NAKSequence: "wrong sequence number", NAKNoSecurity: "no Secure Channel here",
	NAKSecurity: "the Secure Channel is missing or over", NAKBioType: "biometric type not supported",
	NAKBioFormat: "biometric format not supported", NAKRecord: "the record cannot be processed",
}

func (c NAKCode) Error() string {
	name, ok := nakNames[c]
	if !ok {
		name = "unknown reason"
	}
	return fmt.Sprintf("refused by the peripheral: %s (NAK %d)", name, byte(c))
}
