package interop

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/dual"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Environment variable that makes this test binary run as a DHT server of go-libp2p-kad-dht. It reads and writes the
// same lines as examples/kad_node.rs. As a process of its own it can be killed like any other node.
const mixedGoNode = "DHTSTORE_INTEROP_GO_NODE"

// Time allowed for a request, far more than a look-up in a network of 30 nodes takes.
const mixedRequestTime = 60 * time.Second

// mixedRequest is a request to a node of either language.
type mixedRequest struct {
	Op        string   `json:"op"`
	Addresses []string `json:"addresses,omitempty"`
	Cid       string   `json:"cid,omitempty"`
}

// mixedAnswer is the answer. Each kind of request uses some of the fields.
type mixedAnswer struct {
	Peer      string          `json:"peer,omitempty"`
	Address   string          `json:"address,omitempty"`
	Count     int             `json:"count,omitempty"`
	Providers []mixedProvider `json:"providers,omitempty"`
	Error     string          `json:"error,omitempty"`
}

type mixedProvider struct {
	Peer      string   `json:"peer"`
	Addresses []string `json:"addresses"`
}

// mixedGoNodeMain runs a node with both DHTs, as in Kubo. Only the LAN DHT finds peers here. Its records are in memory.
func mixedGoNodeMain(listen, seed string) error {
	bytes, err := hex.DecodeString(seed)
	if err != nil {
		return err
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes))
	if err != nil {
		return err
	}
	host, err := libp2p.New(libp2p.Identity(key), libp2p.ListenAddrStrings(listen), libp2p.DisableRelay())
	if err != nil {
		return err
	}
	node, err := dual.New(host, dual.DHTOption(dht.Mode(dht.ModeServer)))
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(mixedAnswer{Peer: host.ID().String(), Address: listen}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var request mixedRequest
		var answer mixedAnswer
		err := json.Unmarshal(lines.Bytes(), &request)
		if err == nil {
			answer, err = mixedGoAnswer(node, request)
		}
		if err != nil {
			answer = mixedAnswer{Error: err.Error()}
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func mixedGoAnswer(node *dual.DHT, request mixedRequest) (answer mixedAnswer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), mixedRequestTime)
	defer cancel()
	switch request.Op {
	case "join":
		for _, address := range request.Addresses {
			info, err := peer.AddrInfoFromString(address)
			if err != nil {
				return answer, err
			}
			if err := node.LAN.Host().Connect(ctx, *info); err != nil {
				return answer, err
			}
		}
		return answer, errors.Join(node.Bootstrap(ctx), <-node.LAN.RefreshRoutingTable())
	case "table":
		answer.Count = node.LAN.RoutingTable().Size()
		return answer, nil
	}
	key, err := cid.Decode(request.Cid)
	if err != nil {
		return answer, err
	}
	switch request.Op {
	case "provide":
		return answer, node.Provide(ctx, key, true)
	case "find":
		// 0 means no limit, so that the look-up runs to its end.
		for found := range node.FindProvidersAsync(ctx, key, 0) {
			provider := mixedProvider{Peer: found.ID.String()}
			for _, address := range found.Addrs {
				provider.Addresses = append(provider.Addresses, address.String())
			}
			answer.Providers = append(answer.Providers, provider)
		}
		return answer, ctx.Err()
	}
	return answer, fmt.Errorf("unknown request %q", request.Op)
}
