// Package osdp speaks OSDP 2.2 (SIA, IEC 60839-11-5), the field's serial
// protocol between a control panel and its readers, on the panel's side.
//
// A [Bus] polls the peripherals of one RS-485 line over the Secure Channel,
// passes on what they tell, and carries commands to them:
//
//	bus, err := osdp.New(osdp.Config{
//		Open:        func(baud int) (osdp.Line, error) { return osdp.OpenSerial("/dev/ttyUSB0", baud) },
//		Peripherals: []osdp.PeripheralConfig{{Address: 0, Keys: keys}},
//		Handle:      func(e osdp.Event) { … },
//	})
//	…
//	err = bus.Run(ctx)
//
// It never falls back to clear text or to the default key, whatever a
// peripheral says: a channel that is lost or cannot be made is a [State], in
// which nothing that the peripheral tells is passed on. Keys, card data, PINs
// and templates are types that no log shows.
//
// Below the bus there are frames ([Frame], [Decoder]), messages ([ParseReply],
// [ParseCommand]) and the cryptography ([SecureChannel]), which serve a monitor
// or a peripheral as well. The package pd beside this one simulates
// peripherals.
package osdp
