package loopback

import "testing"

func TestOnlyThisMachineIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.8.8.8": true, "::1": true, "localhost": true, "LocalHost": true, "::ffff:127.0.0.1": true,
		"": false, "0.0.0.0": false, "::": false, "192.0.2.1": false, "door.example": false,
		"localhost.example": false, "127.0.0.1.example": false, "127.1": false, "[::1]": false,
	} {
		if got := Is(host); got != want {
			t.Errorf("Is(%q) = %v, want %v", host, got, want)
		}
	}
}

func TestAnAddressToListenOnHasHostAndPort(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:9180", "[::1]:0", "localhost:65535"} {
		if err := CheckListen(addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"", ":9180", "0.0.0.0:9180", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:http", "::1:80"} {
		if err := CheckListen(addr); err == nil {
			t.Errorf("%q was taken", addr)
		}
	}
	for addr, want := range map[string]string{":8883": "", "0.0.0.0:8883": "0.0.0.0", "crm.example:8883": "crm.example"} {
		if host, err := CheckHostPort(addr); err != nil || host != want {
			t.Errorf("CheckHostPort(%q) = %q, %v", addr, host, err)
		}
	}
}
