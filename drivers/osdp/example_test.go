package osdp_test

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

// A panel with one reader. The reader is simulated; with a real one, Open is
// osdp.OpenSerial("/dev/ttyUSB0", baud).
func Example() {
	key := osdp.Key{1, 2, 3} // 16 random bytes, from where secrets are kept
	reader := pd.New(pd.Config{Address: 5, Key: key})

	told := make(chan osdp.Event, 16)
	bus, err := osdp.New(osdp.Config{
		Open: func(baud int) (osdp.Line, error) { return pd.NewLine(pd.Wire{}, baud, reader), nil },
		Peripherals: []osdp.PeripheralConfig{
			{Address: 5, Keys: osdp.NewMemoryKeys(key)},
		},
		Handle: func(e osdp.Event) { told <- e },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ended := make(chan error)
	go func() { ended <- bus.Run(ctx) }()

	if err := bus.Peripheral(5).Wait(ctx); err != nil {
		fmt.Println(err)
		return
	}
	reader.Present("10111101100010001000111010") // somebody holds a card to it
	for e := range told {
		if card, ok := e.Reply.(osdp.Card); ok {
			fmt.Println("a card of", card.Bits, "bits:", card.Data) // card.Data is a Secret
			break
		}
	}
	green := osdp.Flash{On: 10, OnColor: osdp.Green}
	if _, err := bus.Peripheral(5).Do(ctx, osdp.SetLEDs{{Temporary: osdp.LEDSet, Flash: green, Timer: 30}}); err != nil {
		fmt.Println(err)
	}
	cancel()
	fmt.Println(<-ended)
	// Output:
	// a card of 26 bits: [4 bytes]
	// context canceled
}

// A new reader has no key of its own. Install gives it one, once.
func ExamplePeripheral_Install() {
	reader := pd.New(pd.Config{})
	keys := &osdp.MemoryKeys{} // a real one keeps them on a disk, sealed
	bus, err := osdp.New(osdp.Config{
		Open:        func(baud int) (osdp.Line, error) { return pd.NewLine(pd.Wire{}, baud, reader), nil },
		Peripherals: []osdp.PeripheralConfig{{Keys: keys}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go bus.Run(ctx)

	p := bus.Peripheral(0)
	for p.Status().State != osdp.Unsecured {
		time.Sleep(time.Millisecond)
	}
	fmt.Println(p.Status().Err)
	if err := p.Install(ctx, osdp.Key{7, 7, 7}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(p.Status().State)
	// Output:
	// there is no key for the peripheral: install one
	// secure
}

// One eye of a person is compared with the template that the panel holds.
func ExamplePeripheral_BioMatch() {
	key := osdp.Key{1, 2, 3}
	reader := pd.New(pd.Config{Key: key})
	bus, err := osdp.New(osdp.Config{
		Open:        func(baud int) (osdp.Line, error) { return pd.NewLine(pd.Wire{}, baud, reader), nil },
		Peripherals: []osdp.PeripheralConfig{{Keys: osdp.NewMemoryKeys(key)}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go bus.Run(ctx)
	if err := bus.Peripheral(0).Wait(ctx); err != nil {
		fmt.Println(err)
		return
	}

	template := osdp.Secret("what BioRead gave when the person was enrolled")
	reader.Hold(&pd.Trait{Type: osdp.LeftIris, Template: template})
	const threshold = 0xC0
	score, err := bus.Peripheral(0).BioMatch(ctx, osdp.BioMatch{Type: osdp.LeftIris, Threshold: threshold, Template: template})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(score.Status, score.Matches(threshold))
	// Output:
	// ok true
}

// Who is on the line, and at what rate?
func ExampleDiscover() {
	line := pd.NewLine(pd.Wire{}, 9600, pd.New(pd.Config{Address: 3, Baud: 38400}))
	defer line.Close()
	look := osdp.Discovery{Bauds: []int{9600, 38400}, Addresses: []byte{osdp.Broadcast}}
	for found, err := range osdp.Discover(context.Background(), line, look) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("address %d at %d baud: %v\n", found.Address, found.Baud, found.ID)
		fmt.Println("biometrics:", found.Capabilities.Get(osdp.FunctionBiometrics).Level)
	}
	// Output:
	// address 3 at 38400 baud: maker 02-05-D9, model 1 version 1, serial 51000003, firmware 1.0.0
	// biometrics: 3
}

// A Decoder finds the frames in what a line gives, for a monitor. Printing a
// frame shows nothing of its data.
func ExampleDecoder() {
	var d osdp.Decoder
	d.Write([]byte{0x00, 0xFF, 0x53, 0x00, 0x09, 0x00, 0x04, 0x61, 0x00, 0xC0, 0x66, 0x53})
	for {
		f, _, ok := d.Next(false)
		if !ok {
			break
		}
		fmt.Println(f)
	}
	fmt.Println(d.Skipped, "byte was no frame")
	// Output:
	// to 0, number 0: ID, 1 bytes
	// 1 byte was no frame
}
