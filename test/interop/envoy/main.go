// Envoy's question, asked by grpc-go with the messages that go-control-plane generates from Envoy's own protos.
// Reads a CheckRequest as JSON from each line, sends it to the address that is its argument, and writes the
// CheckResponse as JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
)

type answer struct {
	Code     string          `json:"code"`
	Response json.RawMessage `json:"response,omitempty"`
}

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	client := auth.NewAuthorizationClient(connection)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		encoded, err := json.Marshal(ask(client, lines.Bytes()))
		if err != nil {
			panic(err)
		}
		fmt.Println(string(encoded))
	}
}

func ask(client auth.AuthorizationClient, line []byte) answer {
	request := &auth.CheckRequest{}
	if err := protojson.Unmarshal(line, request); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	response, err := client.Check(ctx, request)
	if err != nil {
		return answer{Code: status.Code(err).String()}
	}
	encoded, err := protojson.Marshal(response)
	if err != nil {
		panic(err)
	}
	return answer{Code: status.Code(nil).String(), Response: encoded}
}
