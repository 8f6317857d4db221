package interop

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// The addresses of this process, one in each network, for the tests that use go-libp2p directly. No host gets them,
// because host numbers end at lastHost.
const (
	ownPrivate = "10.87.0.250"
	ownPublic  = "9.250.0.1"
	ownIP6     = "2a01:250::1"
)

// joinNetwork connects this process to the network of the hosts, once. The process forwards no packets.
var joinNetwork = sync.OnceValue(func() error {
	for _, address := range []string{ownPrivate + "/24", ownPublic + "/8", ownIP6 + "/16 nodad"} {
		if err := ip("addr add " + address + " dev " + bridge); err != nil {
			return err
		}
	}
	return nil
})

// addPublicAddresses gives the host addresses that look public, each in an IP group of its own. All of 9.0.0.0/8 and
// 2a01::/16 is on the bridge, and no route leads to the outside.
func (h host) addPublicAddresses(t *testing.T) (ip4, ip6 string) {
	t.Helper()
	number := strings.TrimPrefix(h.name, "host")
	ip4, ip6 = "9."+number+".0.1", "2a01:"+number+"::1"
	for _, address := range []string{ip4 + "/8", ip6 + "/16 nodad"} {
		if err := ip(fmt.Sprintf("-n %s addr add %s dev eth0", h.name, address)); err != nil {
			t.Fatal(err)
		}
	}
	return ip4, ip6
}

// removeAddress removes an address, given with its prefix length, from the host.
func (h host) removeAddress(t *testing.T, address string) {
	t.Helper()
	if err := ip(fmt.Sprintf("-n %s addr del %s dev eth0", h.name, address)); err != nil {
		t.Fatal(err)
	}
}
