// Package s3 keeps a persist.Store's objects in a bucket of anything that speaks S3. It alone imports the vendor's SDK.
//
// Credentials, region and endpoint come from where every tool of the vendor's takes them (AWS_ACCESS_KEY_ID,
// AWS_WEB_IDENTITY_TOKEN_FILE, AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_S3, the instance's metadata, …); Config only overrides.
// What the store needs of the server: strong reads after writes, and If-None-Match on PutObject and CompleteMultipartUpload.
package s3
